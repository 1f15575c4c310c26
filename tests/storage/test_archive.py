import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from offramp.errors import ArgumentError, BundleError
from offramp.storage.archive import read_arrays, write_arrays

ARRAYS: dict[str, ArrayLike] = {
    "grid": np.arange(6.0).reshape(2, 3),
    "words": np.array(["a", "länger"]),
    "one": 7,
}


def written(folder: Path) -> Path:
    path = folder / "some.npz"
    write_arrays(path, "some arrays 1", ARRAYS)
    return path


def test_arrays_come_back_with_their_types_and_shapes(tmp_path: Path) -> None:
    back = read_arrays(written(tmp_path), "some arrays 1", ARRAYS)
    assert set(back) == set(ARRAYS)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(back[name], values, strict=name != "one")


def test_an_open_file_is_refused_and_not_called_by_its_address() -> None:
    with pytest.raises(ArgumentError, match=r"^path is a BytesIO\. Give a path"):
        read_arrays(io.BytesIO(b"no archive"), "some arrays 1", ARRAYS)  # type: ignore[arg-type]


def test_numpy_reads_the_file_without_pickle(tmp_path: Path) -> None:
    with np.load(written(tmp_path), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["grid"], ARRAYS["grid"])


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    assert written(tmp_path).read_bytes() == first


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_shortened_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("short"))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(BundleError, match=r"some\.npz"):
        read_arrays(path, "some arrays 1", ARRAYS)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_flipped_byte_is_refused_or_changes_no_array(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("flip"))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        back = read_arrays(path, "some arrays 1", ARRAYS)
    except BundleError:
        return
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(back[name], values)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, schema=np.array("some arrays 1"), grid=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BundleError, match=r"evil\.npz is damaged"):
        read_arrays(path, "some arrays 1", ["grid"])


def test_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(tmp_path / "a.npz", "x", {"a": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("schema", "required", "message"),
    [
        ("other arrays 1", ARRAYS, "does not hold other arrays 1"),
        ("some arrays 1", [*ARRAYS, "more"], r"lacks \['more'\]"),
        ("some arrays 1", ["grid", "one"], r"unknown \['words'\]"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    tmp_path: Path, schema: str, required: list[str], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        read_arrays(written(tmp_path), schema, required)


def test_a_text_file_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "note.npz"
    path.write_text("not a zip file")
    with pytest.raises(BundleError, match=r"note\.npz is damaged"):
        read_arrays(path, "x", [])
    with pytest.raises(BundleError, match=r"cannot read .*gone\.npz"):
        read_arrays(tmp_path / "gone.npz", "x", [])
