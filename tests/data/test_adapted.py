"""Data sets whose items are dicts or hold pictures, as Hugging Face's `datasets` gives them."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch
from offramp.data import as_samples
from offramp.errors import DataError, ShapeError
from offramp.preprocess import ImagePreprocess, SpectrogramPreprocess
from offramp.training import fit_branches

LABELS = np.arange(13) % 3
PIXELS = np.random.default_rng(0).integers(0, 256, (13, 9, 7, 3), np.uint8)
PREPROCESS = ImagePreprocess(height=6, width=5)
HEARD = SpectrogramPreprocess(
    rate=8000, num_samples=300, channels=[{"window": 64, "step": 32, "fft": 64}]
)


class Table:
    """Rows of columns: [i] is a dict, ["column"] is a list, and `with_format` sets the types."""

    def __init__(
        self, columns: dict[str, list[Any]], form: Callable[[Any], Any] | None = None
    ) -> None:
        self._columns, self._form = columns, form or (lambda cell: cell)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return [self._form(cell) for cell in self._columns[key]]
        if not isinstance(key, int):
            raise TypeError(f"wrong key type: {type(key)}")
        return {name: self._form(cells[key]) for name, cells in self._columns.items()}

    def with_format(self, name: str) -> "Table":
        forms: dict[str, Callable[[Any], Any]] = {"numpy": np.asarray, "torch": _as_tensor}
        return Table(self._columns, forms[name])


def _as_tensor(cell: Any) -> Any:
    return torch.as_tensor(np.array(cell))


@pytest.fixture
def pictures() -> Table:
    columns: dict[str, list[Any]] = {"image": list(map(Image.fromarray, PIXELS))}
    return Table({**columns, "label": LABELS.tolist(), "site": ["north", "south"] * 6 + ["north"]})


@pytest.fixture
def features() -> Table:
    values = np.random.default_rng(1).normal(size=(13, 4, 5)).astype(np.float32)
    return Table({"x": list(values), "y": LABELS.tolist(), "z": list(values[:, 0])})


def _inputs(samples: Any) -> Tensor:
    (inputs,) = samples.read(range(len(samples))).inputs
    assert isinstance(inputs, Tensor)
    return inputs


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_two_keys_name_input_and_label(features: Table, form: str | None) -> None:
    data = features if form is None else features.with_format(form)
    samples = as_samples(data, keys=("x", "y"))
    np.testing.assert_array_equal(_inputs(samples), np.stack(features["x"]))
    np.testing.assert_array_equal(samples.targets, LABELS.astype(np.int64), strict=True)


def test_several_keys_name_several_inputs(features: Table) -> None:
    batch = as_samples(features, keys=(("x", "z"), "y")).read([3, 1])
    assert [tuple(values.shape) for values in batch.inputs] == [(2, 4, 5), (2, 5)]


@pytest.mark.parametrize("form", [None, "numpy"])
def test_pictures_are_prepared_when_they_are_read(pictures: Table, form: str | None) -> None:
    data = pictures if form is None else pictures.with_format(form)
    samples = as_samples(data, keys=("image", "label"), preprocess=PREPROCESS)
    np.testing.assert_array_equal(_inputs(samples), PREPROCESS.batch(list(PIXELS)))


def test_pairs_of_picture_and_label_are_prepared_too() -> None:
    pairs = [(Image.fromarray(one), int(label)) for one, label in zip(PIXELS, LABELS, strict=True)]
    samples = as_samples(pairs, preprocess=transforms.ToTensor())
    np.testing.assert_array_equal(
        _inputs(samples), np.moveaxis(PIXELS, 3, 1).astype(np.float32) / 255
    )


def test_inputs_that_are_not_pictures_are_not_changed(features: Table) -> None:
    samples = as_samples(features, keys=("x", "y"), preprocess=PREPROCESS)
    np.testing.assert_array_equal(_inputs(samples), np.stack(features["x"]))


def test_another_preprocessing_is_other_content(pictures: Table) -> None:
    keys = [
        as_samples(pictures, keys=("image", "label"), preprocess=prepare).content_key
        for prepare in (PREPROCESS, PREPROCESS, PREPROCESS.model_copy(update={"crop": 0.5}))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_branches_are_trained_on_a_data_set_of_dicts(pictures: Table) -> None:
    data = as_samples(pictures, keys=("image", "label"), preprocess=PREPROCESS)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    backbone = cut(network, after=["1"], sample=data[0][0][None])
    branches = {"1": [ConvBranch(filters=2, pool="global", hidden=3)]}
    with pytest.raises(DataError, match=r"as_samples\(data, keys="):
        fit_branches(backbone, branches, pictures, pictures, seeds=[0])
    model = fit_branches(backbone, branches, data, data, seeds=[0], epochs=1)
    assert model.collect(data).labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {},
            "a dict with the keys 'image', 'label', 'site', not a pair .* as_samples.*keys=",
        ),
        ({"keys": ("pixels", "label")}, "sample 0 has no key 'pixels'. .* keys 'image', 'label'"),
        ({"keys": ("image", "labels")}, "sample 0 has no key 'labels'"),
        ({"keys": "image"}, r"keys='image' must name the input and the label"),
        ({"keys": ("image",)}, "must name the input and the label"),
        ({"keys": ((), "label")}, "must name the input and the label"),
        ({"keys": ("image", 1)}, "must name the input and the label"),
        ({"keys": 5}, "must name the input and the label"),
        ({"keys": ("image", "label")}, r"is a picture \(RGB, 7x9 pixels\).*preprocess=\.\.\."),
        ({"keys": ("image", "site"), "preprocess": PREPROCESS}, "'north', which is not a number"),
    ],
)
def test_a_wrong_or_missing_argument_is_named_with_what_would_be_right(
    pictures: Table, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        as_samples(pictures, **arguments).read([0])


def test_keys_for_samples_that_are_not_dicts_are_refused() -> None:
    with pytest.raises(DataError, match=r"sample 0 is a tuple, and `keys` are for .* dicts"):
        as_samples([(np.ones(3), 0)], keys=("x", "y")).read([0])


def test_a_dict_of_data_sets_is_refused_with_its_parts(features: Table) -> None:
    with pytest.raises(DataError, match=r"this one has the keys 'train', 'test'\. Give one of its"):
        as_samples({"train": features, "test": features}, keys=("x", "y"))


@pytest.mark.parametrize("arguments", [{"keys": ("x", "y")}, {"preprocess": PREPROCESS}])
def test_arrays_and_samples_take_neither_keys_nor_preprocessing(
    features: Table, arguments: dict[str, Any]
) -> None:
    arrays = np.ones((2, 3)), np.zeros(2, int)
    for data in (arrays, as_samples(features, keys=("x", "y"))):
        with pytest.raises(DataError, match="`keys` and `preprocess` are for data sets that give"):
            as_samples(data, **arguments)


def test_pictures_that_a_preprocessing_leaves_at_their_own_sizes_are_refused() -> None:
    pairs = [(Image.fromarray(PIXELS[0]), 0), (Image.fromarray(PIXELS[1, :5]), 1)]
    with pytest.raises(ShapeError, match="Give all samples one shape"):
        as_samples(pairs, preprocess=transforms.ToTensor()).read([0, 1])


def waves(count: int = 5) -> list[Any]:
    draw = np.random.default_rng(2)
    return [draw.normal(size=250 + 40 * place).astype(np.float32) / 9 for place in range(count)]


@pytest.mark.parametrize("form", [np.asarray, torch.as_tensor, np.float64])
def test_sounds_are_prepared_when_they_are_read(form: Callable[[Any], Any]) -> None:
    pairs = [(form(wave), place % 2) for place, wave in enumerate(waves())]
    samples = as_samples(pairs, preprocess=HEARD)
    np.testing.assert_allclose(_inputs(samples), HEARD.batch(waves()), atol=1e-6)


def test_sounds_in_dicts_are_resampled_to_the_rate_of_the_preprocessing() -> None:
    soxr: Any = pytest.importorskip("soxr")
    rates = [8000, 16_000, 44_100, 8000, 4000]
    items = [
        {"audio": {"array": wave, "sampling_rate": rate, "path": "x"}, "label": 1}
        for wave, rate in zip(waves(), rates, strict=True)
    ]
    samples = as_samples(items, keys=("audio", "label"), preprocess=HEARD)
    expected = [
        wave if rate == 8000 else soxr.resample(wave, rate, 8000)
        for wave, rate in zip(waves(), rates, strict=True)
    ]
    np.testing.assert_array_equal(_inputs(samples), HEARD.batch(expected))


def test_contents_of_sound_files_are_decoded() -> None:
    soundfile: Any = pytest.importorskip("soundfile")
    content = io.BytesIO()
    soundfile.write(content, waves(1)[0], 8000, format="WAV", subtype="FLOAT")
    samples = as_samples([(content.getvalue(), 0)], preprocess=HEARD)
    np.testing.assert_array_equal(_inputs(samples)[0], HEARD(waves(1)[0]))


def test_a_sound_beside_another_input_is_prepared_alone() -> None:
    items = [(np.ones((2, 3), np.float32), wave) for wave in waves()]
    samples = as_samples([(inputs, 0) for inputs in items], preprocess=HEARD)
    beside, heard = samples.read([1]).inputs
    assert tuple(beside.shape) == (1, 2, 3)
    np.testing.assert_array_equal(heard[0], HEARD(waves()[1]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 300), np.float32), r"none of its inputs \(an array \(2, 300\)\) is a sound"),
        ("a.wav", r"none of its inputs \('a.wav'\) is a sound.* at its rate, 8000 Hz; a dict"),
        (b"RIFF", "sample 0: its content is not a sound"),
        (np.zeros(300, np.int16), r"sample 0: a sound must be one channel of floats .* int16"),
        (
            {"array": np.zeros((2, 300)), "sampling_rate": 4000},
            r"sample 0: a sound must be one channel of floats \(N,\), got float64 \(2, 300\)",
        ),
    ],
)
def test_what_is_no_sound_is_refused_and_never_passed_on_unprepared(
    value: Any, message: str
) -> None:
    if isinstance(value, bytes):
        pytest.importorskip("soundfile")
    with pytest.raises((DataError, ShapeError), match=message):
        as_samples([(value, 0), (value, 1)], preprocess=HEARD).read([0])


def test_a_decoded_sound_without_a_preprocessing_is_answered_with_one() -> None:
    item = {"audio": {"array": waves(1)[0], "sampling_rate": 8000}, "label": 0}
    with pytest.raises(DataError, match=r"is a sound, .*preprocess=.*SpectrogramPreprocess"):
        as_samples([item], keys=("audio", "label")).read([0])
