from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data import Samples, as_samples
from offramp.data.augment import Augment, augmented, views_of
from offramp.data.images import labelled_pictures
from offramp.data.prepared import PreparedSource
from offramp.errors import DataError, PlanError, ShapeError
from offramp.preprocess import ImagePreprocess, SpectrogramPreprocess
from offramp.preprocess.spectrogram import Stft

COUNT, HEIGHT, WIDTH = 11, 9, 7
PIXELS = np.random.default_rng(3).normal(size=(COUNT, 3, HEIGHT, WIDTH)).astype(np.float32)
LABELS = np.arange(COUNT) % 4
ALL = Augment(flip=True, shift=2, erase=0.3, views=3, seed=5)


def _samples() -> list[Any]:
    return [(torch.from_numpy(x), int(y)) for x, y in zip(PIXELS, LABELS, strict=True)]


def _pictures(size: int = 9) -> Samples:
    pixels = np.random.default_rng(1).integers(0, 256, (COUNT, 8, 6, 3), np.uint8)
    ids = np.array([f"photo {place}" for place in range(COUNT)])
    spec = ImagePreprocess(height=size, width=size)
    return labelled_pictures(pixels, LABELS, spec, ids=ids)


def _values(data: Any, batch_size: int = 4, order: Any = None) -> Tensor:
    return torch.cat(
        [batch.inputs[0] for batch in as_samples(data).batches(batch_size, order=order)]
    )


@pytest.mark.parametrize("data", [(PIXELS, LABELS), _samples(), _pictures()])
def test_every_way_to_read_a_view_gives_the_same_bits(data: Any) -> None:
    views = views_of(data, ALL)
    assert len(views) == 3 * COUNT
    whole = _values(views, 5)
    assert torch.equal(whole, torch.stack([views[place][0] for place in range(len(views))]))
    for view in range(3):
        rows = whole[view * COUNT : (view + 1) * COUNT]
        assert torch.equal(rows, _values(augmented(data, ALL, view), 4))
    order = np.random.default_rng(0).permutation(len(views))
    assert torch.equal(whole[torch.from_numpy(order)], _values(views, 7, order))


def test_threads_and_torchs_own_generator_have_no_say() -> None:
    expected = _values(augmented(_samples(), ALL, 6))
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        torch.manual_seed(99)
        before = torch.random.get_rng_state()
        assert torch.equal(_values(augmented(_samples(), ALL, 6)), expected)
        assert torch.equal(torch.random.get_rng_state(), before)
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state)


def test_a_view_depends_on_seed_view_and_place() -> None:
    same = np.broadcast_to(PIXELS[0], PIXELS.shape).copy()
    seen = [
        _values(augmented((same, LABELS), Augment(shift=3, erase=0.3, seed=seed), view))
        for seed in range(2)
        for view in range(2)
    ]
    distinct = {row.numpy().tobytes() for values in seen for row in values}
    assert len(distinct) > 4 * COUNT - 4  # two small changes may come out alike


def test_these_are_the_views_of_scheme_1() -> None:
    """Caches and results keep their meaning; a new scheme needs another number."""
    image = torch.arange(1.0, 21).reshape(1, 4, 5)
    found = [Augment(flip=True, shift=1, erase=0.5).apply(image, 1, place) for place in (1, 3)]
    assert [values[0].int().tolist() for values in found] == [
        [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 0, 0, 0, 0], [16, 0, 0, 0, 0]],
        [[4, 3, 2, 1, 1], [4, 3, 2, 1, 1], [9, 8, 7, 6, 6], [14, 13, 12, 11, 11]],
    ]


def test_a_flip_comes_to_half_of_the_images_and_mirrors_left_and_right() -> None:
    ramp = np.tile(np.arange(WIDTH, dtype=np.float32), (2000, 1, 2, 1))
    values = _values(augmented((ramp, np.zeros(2000, int)), Augment(flip=True), 0), 500)
    flipped = values[:, 0, 0, 0] == WIDTH - 1
    assert torch.equal(values[flipped].flip(-1), torch.from_numpy(ramp)[flipped])
    assert torch.equal(values[~flipped], torch.from_numpy(ramp)[~flipped])
    assert 930 < int(flipped.sum()) < 1070  # 3.1 standard deviations


def test_a_shift_moves_both_ways_by_every_whole_number_and_repeats_the_edge() -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    image = torch.from_numpy(np.stack([rows, columns]))
    moves = []
    for place in range(600):
        moved = Augment(shift=2).apply(image, 0, place)
        down, right = HEIGHT // 2 - moved[0, HEIGHT // 2, 0], WIDTH // 2 - moved[1, 0, WIDTH // 2]
        expected = (
            np.clip(rows - float(down), 0, HEIGHT - 1),
            np.clip(columns - float(right), 0, WIDTH - 1),
        )
        np.testing.assert_array_equal(moved, np.stack(expected))
        moves.append((int(down), int(right)))
    counts = Counter(moves)
    assert len(counts) == 25
    assert min(counts.values()) > 8  # 24 expected


def test_a_pair_shifts_rows_and_columns_by_numbers_of_their_own() -> None:
    image = torch.from_numpy(PIXELS[0])
    down = {Augment(shift=(2, 0)).apply(image, 0, place) for place in range(40)}
    for moved in down:
        rows = [row for row in range(HEIGHT) if torch.equal(moved[:, 4], image[:, row])]
        assert len(rows) == 1
        assert abs(rows[0] - 4) <= 2
    both = Augment(shift=(3, 3)).apply(image, 0, 1)
    assert torch.equal(both, Augment(shift=3).apply(image, 0, 1))
    with pytest.raises(PlanError, match="nothing is switched on"):
        Augment(shift=(0, 0))
    with pytest.raises(ShapeError, match="shift by up to 7 pixels could leave nothing"):
        _values(augmented((PIXELS, LABELS), Augment(shift=(0, WIDTH)), 0))
    assert len(_values(augmented((PIXELS, LABELS), Augment(shift=(WIDTH, 0)), 0))) == COUNT


class _Sounds:
    in_files = False
    digests = np.array([f"{number:064}" for number in range(COUNT)])

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return np.random.default_rng(index).normal(size=400).astype(np.float32)


def test_spectrograms_are_shifted_but_not_mirrored() -> None:
    chain = SpectrogramPreprocess(
        rate=8_000, num_samples=400, channels=(Stft(window=64, step=32, fft=64),)
    )
    sounds = Samples.of(PreparedSource([_Sounds()], LABELS, [chain]))
    assert len(_values(augmented(sounds, Augment(shift=(2, 0), erase=0.1), 0))) == COUNT
    for view in (views_of, lambda data, augment: augmented(data, augment, 0)):
        with pytest.raises(PlanError, match=r"low frequencies .*`shift: \[8, 0\]` moves"):
            view(sounds, ALL)
    ALL.check_inputs([ImagePreprocess(height=5, width=5)])


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (40, 3), (1, 30), (32, 32)])
def test_at_most_the_given_share_is_erased_as_one_rectangle(
    share: float, shape: tuple[int, int]
) -> None:
    image = torch.ones(2, *shape)
    shares = []
    for place in range(150):
        blank = Augment(erase=share).apply(image, 0, place) == 0
        assert torch.equal(blank[0], blank[1])
        rows, columns = blank[0].any(1), blank[0].any(0)
        assert int(blank[0].sum()) == int(rows.sum()) * int(columns.sum())
        assert all(bool((torch.where(side)[0].diff() == 1).all()) for side in (rows, columns))
        shares.append(float(blank[0].float().mean()))
    assert max(shares) <= share
    if shape == (32, 32):  # large enough for the drawn shares to be met almost exactly
        assert share * 0.4 < np.mean(shares) < share * 0.55


def test_switching_one_change_on_leaves_the_draws_of_the_others() -> None:
    for place in range(COUNT):
        image = torch.from_numpy(PIXELS[place])
        moved = Augment(shift=2).apply(image, 0, place)
        erased = Augment(shift=2, erase=0.2).apply(image, 0, place)
        assert torch.equal(erased[erased != 0], moved[erased != 0])


def test_the_images_themselves_stay_as_they_were() -> None:
    pixels = PIXELS.copy()
    _values(views_of((pixels, LABELS), ALL))
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize("labels", [LABELS, LABELS / 3])
def test_every_view_keeps_its_label(labels: NDArray[Any]) -> None:
    views = views_of((PIXELS, labels), ALL)
    expected = np.tile(as_samples((PIXELS, labels)).targets, 3)
    np.testing.assert_array_equal(views.targets, expected, strict=True)
    targets = torch.cat([batch.targets for batch in views.batches(6)])
    np.testing.assert_array_equal(targets, expected, strict=True)
    assert [views[place][1] for place in range(len(views))] == expected.tolist()
    assert type(views[1][1]) is type(expected[1].item())


def test_views_are_named_by_image_and_view() -> None:
    views = views_of(_pictures(), ALL)
    assert views.ids is not None
    assert views.ids[[2, COUNT + 2]].tolist() == ["photo 2 view 0", "photo 2 view 1"]
    assert augmented((PIXELS, LABELS), ALL, 7).ids is None


def test_places_count_from_the_end_and_stop_there() -> None:
    views = views_of(_samples(), ALL)
    assert torch.equal(views[-1][0], views[3 * COUNT - 1][0])
    with pytest.raises(IndexError):
        views[3 * COUNT]


def test_epochs_take_new_views_or_a_fixed_number_in_turn() -> None:
    assert [Augment(flip=True).view_in(epoch) for epoch in range(1, 6)] == [0, 1, 2, 3, 4]
    assert [ALL.view_in(epoch) for epoch in range(1, 6)] == [0, 1, 2, 0, 1]
    assert len(views_of(_samples(), Augment(flip=True))) == COUNT


def test_every_setting_and_every_image_changes_the_key() -> None:
    settings: list[dict[str, Any]] = [
        {"flip": False},
        {"shift": 1},
        {"erase": 0.1},
        {"views": 2},
        {"seed": 6},
    ]
    others = [ALL.model_copy(update=setting) for setting in settings]
    pixels = PIXELS.copy()
    pixels[10, 2, 8, 6] += 1
    keys = [
        as_samples((PIXELS, LABELS)).content_key,
        views_of((PIXELS, LABELS), ALL).content_key,
        *(views_of((PIXELS, LABELS), other).content_key for other in others),
        *(augmented((PIXELS, LABELS), ALL, view).content_key for view in range(2)),
        views_of((pixels, LABELS), ALL).content_key,
    ]
    assert len(set(keys)) == len(keys)
    assert views_of(_samples(), ALL).content_key == keys[1]


def test_preprocessing_changes_the_content_key() -> None:
    small, large = (views_of(_pictures(size), ALL) for size in (9, 10))
    assert small.content_key != large.content_key


@pytest.mark.parametrize(
    "settings",
    [{}, {"views": 3}, {"shift": -1}, {"erase": 0.6}, {"flip": 1, "views": 0}, {"rotate": 5}],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        Augment(**settings)


def test_augmentation_with_nothing_switched_on_says_what_to_set() -> None:
    with pytest.raises(PlanError, match="Set flip, shift or erase, or leave augment out"):
        Augment(seed=3)


@pytest.mark.parametrize("inputs", [PIXELS[:, 0], (PIXELS, PIXELS), PIXELS[:, None]])
def test_anything_but_one_image_per_sample_is_refused(inputs: Any) -> None:
    with pytest.raises(ShapeError, match=r"one image \(C, H, W\) per sample.*fixed number of them"):
        views_of((inputs, LABELS), ALL)[0]


def test_a_shift_out_of_sight_is_refused() -> None:
    assert views_of((PIXELS, LABELS), Augment(shift=WIDTH - 1))[0][0].shape == PIXELS.shape[1:]
    with pytest.raises(ShapeError, match="shift by up to 7 pixels"):
        views_of((PIXELS, LABELS), Augment(shift=WIDTH))[0]


def test_a_value_that_is_not_finite_is_refused_with_its_image() -> None:
    pixels = PIXELS.copy()
    pixels[4] = np.nan
    with pytest.raises(DataError, match=r"sample 4 holds NaN"):
        views_of((pixels, LABELS), Augment(flip=True, views=2)).read([12, 15])


def test_a_view_before_the_first_is_refused() -> None:
    with pytest.raises(PlanError, match="view is -1"):
        augmented(_samples(), ALL, -1)
