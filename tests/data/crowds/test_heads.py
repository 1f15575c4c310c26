import io
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from offramp.data.crowds.heads import density, read_map, resized
from offramp.errors import DataError

SIZE = (31, 47)


def mat(**variables: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


def dots(*places: tuple[int, int]) -> NDArray[np.float64]:
    found = np.zeros(SIZE)
    for place in places:
        found[place] += 1
    return found


def test_a_map_of_whole_numbers_is_smoothed_and_any_other_is_left_alone() -> None:
    lone = density(dots((15, 23)))
    assert lone.max() == lone[15, 23] == pytest.approx(0.01126, abs=5e-6)
    assert np.count_nonzero(lone) == 15 * 15
    assert np.array_equal(density(lone), lone)


def test_smoothing_loses_no_head_at_a_border() -> None:
    places = [(0, 0), (30, 46), (0, 20), (15, 46), (15, 23), (15, 23)]
    for place in places:
        assert density(dots(place)).sum() == pytest.approx(1, abs=1e-12)
    assert density(dots(*places)).sum() == pytest.approx(6, abs=1e-12)


def test_a_head_in_a_corner_keeps_the_form_of_the_kernel() -> None:
    corner, lone = density(dots((0, 0))), density(dots((15, 23)))
    inside = lone[15:23, 23:31]  # the quarter of the kernel that lies in the picture
    assert np.allclose(corner[:8, :8], inside / inside.sum(), atol=1e-15)


@pytest.mark.parametrize("size", [(31, 47), (4, 6), (5, 47), (62, 94), (1, 1), (31, 6)])
def test_resizing_keeps_the_sum(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(SIZE)
    made = resized(values, *size)
    assert made.shape == size
    assert made.sum() == pytest.approx(values.sum(), rel=1e-13)
    assert made.min() >= 0


def test_resizing_by_a_whole_number_adds_up_blocks() -> None:
    values = np.random.default_rng(0).random((30, 45))
    blocks = values.reshape(6, 5, 9, 5).sum((1, 3))
    assert np.allclose(resized(values, 6, 9), blocks, rtol=1e-13)


def test_a_pixel_is_shared_by_area() -> None:
    made = resized(np.array([[1.0, 0, 0]]), 2, 2)
    assert np.allclose(made, [[0.5, 0], [0.5, 0]])
    assert np.allclose(resized(np.array([[0, 1.0, 0]]), 1, 2), [[0.5, 0.5]])


def test_text_gives_dots_from_the_upper_left() -> None:
    found = read_map(b"0 0\n3.7 2\n\n3.2 2.9\n47 31\n", SIZE, text=True)
    assert np.array_equal(found, dots((0, 0), (2, 3), (2, 3), (30, 46)))


@pytest.mark.parametrize("values", [np.ones(SIZE, np.uint8), np.full(SIZE, 0.25, np.float32)])
def test_the_variable_of_a_matlab_file_is_read_in_any_number_type(values: Any) -> None:
    found = read_map(mat(map=values, other=3), SIZE, text=False)
    assert found.dtype == np.float64
    assert np.array_equal(found, values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (mat(image=np.zeros(SIZE)), "should have the variable `map`, and has only image"),
        (mat(), "has no variable at all"),
        (mat(map=np.zeros((47, 31))), r"map has 47 x 31 pixels, and its picture has 31 x 47"),
        (mat(map="31 people"), "not a matrix of real numbers"),
        (mat(map=np.zeros((*SIZE, 2))), "not a matrix of real numbers"),
        (mat(map=np.full(SIZE, 1j)), "not a matrix of real numbers"),
        (mat(map=np.array([[{"a": 1}]], object)), "not a matrix of real numbers"),
        (mat(map=np.full(SIZE, np.nan)), "negative or not finite"),
        (mat(map=np.full(SIZE, -0.1)), "negative or not finite"),
        (b"MATLAB 5.0 MAT-file" + bytes(200), "not a MATLAB file, or is damaged"),
        (mat(map=np.ones(SIZE))[:-50], "not a MATLAB file, or is damaged"),
        (b"", "not a MATLAB file, or is damaged"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400), "version 7.3"),
    ],
)
def test_a_file_of_another_form_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_map(content, SIZE, text=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 2\n48 2", r"line 2: the dot at x = 48, y = 2 is outside its picture, .* 47 pixels"),
        (b"-1 2", "outside its picture"),
        (b"nan 2", "outside its picture"),
        (b"1 31.5", "outside its picture"),
        (b"1 2 3", "line 1 is '1 2 3', not two numbers"),
        (b"1,2", "not two numbers"),
        (b"\xff\xfe1 2", "not two numbers"),
    ],
)
def test_a_dot_that_cannot_be_placed_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_map(content, SIZE, text=True)
