import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.axes import MAP, check_taps
from offramp.backbones.places import Place, list_places
from offramp.backbones.staged import cut
from offramp.errors import CutError


class Mixed(nn.Module):
    """Tensors with axes in every order that backbones use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.act = nn.GELU()
        self.dense = nn.Linear(6, 6)
        self.top = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.act(self.stem(x))  # (B, 6, H, W)
        last = self.dense(maps.permute(0, 2, 3, 1))  # (B, H, W, 6)
        b, h, w, c = last.shape
        windows = last.reshape(b, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
        windows = windows * 2  # (B * windows, 4, 6)
        tokens = maps.flatten(2).transpose(1, 2)  # (B, positions, 6)
        steps = tokens.transpose(0, 1).exp()  # (positions, B, 6)
        mixed = windows.reshape(b, -1, c).mean(1) + steps.mean(0)
        logits: Tensor = self.top(mixed)
        return logits


SAMPLE = torch.zeros(1, 3, 8, 12)


def by_name(model: nn.Module, sample: Tensor = SAMPLE) -> dict[str, Place]:
    return {
        name: place
        for place in list_places(model, sample).places
        for name in (place.name, *place.aliases)
    }


def test_places_know_which_axis_is_the_batch_the_channels_and_space() -> None:
    found = by_name(Mixed())
    assert found["act"].axes == MAP
    assert found["dense"].axes == ("batch", "height", "width", "channels")
    assert found["mul"].axes == ("windows", "other", "other")
    assert found["flatten"].axes == ("batch", "channels", "positions")
    assert found["exp"].axes == ("positions", "batch", "channels")
    assert found["mean"].axes == ("batch", "channels")
    assert [name for name, place in found.items() if place.features] == ["stem", "act"]


class OneSize(nn.Module):
    """Takes pictures of one size only, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 2, stride=2)
        self.place = nn.Parameter(torch.zeros(24, 6))
        self.top = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        grid = tokens.unflatten(1, (4, 6)) * 2
        logits: Tensor = self.top(grid.mean((1, 2)))
        return logits


def test_space_is_unknown_where_only_one_size_runs_and_only_proven_maps_count() -> None:
    found = by_name(OneSize())
    assert found["patches"].axes == MAP
    assert found["mul"].axes == ("batch", "unknown", "unknown", "unknown")
    assert found["mul"].features is None


class FixedGrid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.pool = nn.AdaptiveAvgPool2d((4, 3))
        self.top = nn.Linear(72, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.top(self.pool(self.stem(x)).flatten(1))
        return logits


def test_a_map_of_a_size_that_never_changes_is_known_by_its_layer() -> None:
    assert by_name(FixedGrid())["pool"].axes == MAP


class Looks(nn.Module):
    """A leaf that needs values, so nothing runs without them."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 1 else x + 1


def test_axes_are_found_where_a_leaf_has_to_see_values() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Looks(), nn.Conv2d(4, 2, 1))
    listing = list_places(model, SAMPLE, leaves=[Looks])
    assert [place.axes for place in listing.places] == [MAP, MAP]
    assert listing.total_flops == 2 * 8 * 12 * (3 * 4 + 4 * 2)
    check_taps(cut(model, ["0", "1"], SAMPLE, leaves=[Looks]), ["0", "1"])


class Two(nn.Module):
    """A picture and a spectrogram, each of its own size."""

    def __init__(self) -> None:
        super().__init__()
        self.eye, self.ear = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3)
        self.top = nn.Linear(4, 5)

    def forward(self, picture: Tensor, sound: Tensor) -> Tensor:
        heard = self.ear(sound).mean((2, 3))[:, :, None, None]
        mixed = self.eye(picture) * heard
        logits: Tensor = self.top(mixed.mean((2, 3)))
        return logits


def test_every_input_shows_its_own_axes() -> None:
    sample = (torch.zeros(2, 3, 8, 12), torch.zeros(2, 1, 6, 9))
    found = {place.name: place.axes for place in list_places(Two(), sample).places}
    assert found["eye"] == found["ear"] == found["mul"] == MAP


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("mul", r"'mul' has shape \(6, 4, 6\) for one sample and \(18, 4, 6\) for 3, so its rows"),
        ("exp", r"'exp' has shape \(24, 1, 6\) for one sample and \(24, 3, 6\) for 3, so its rows"),
        ("dense", r"'dense' is a map with its channels last, \(1, 4, 6, 6\) for one sample"),
    ],
)
def test_taps_whose_rows_are_not_samples_or_whose_channels_are_last_are_refused(
    place: str, expected: str
) -> None:
    backbone = cut(Mixed(), ["act", place], SAMPLE)
    with pytest.raises(CutError, match=expected):
        check_taps(backbone, backbone.cuts)
    check_taps(backbone, ["act"])


def test_tokens_and_vectors_are_fine_as_taps() -> None:
    backbone = cut(Mixed(), ["flatten", "mean"], SAMPLE)
    check_taps(backbone, backbone.cuts)


def test_trying_sizes_that_a_model_does_not_take_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    check_taps(cut(OneSize(), ["patches"], SAMPLE), ["patches"])
    list_places(OneSize(), SAMPLE)
    assert capfd.readouterr() == ("", "")


class Placed(nn.Module):
    """Channels last for a while, with a parameter for each place of a map of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dense = nn.Conv2d(3, 6, 1), nn.Linear(6, 6)
        self.place = nn.Parameter(torch.zeros(8, 12, 6))
        self.act, self.top = nn.GELU(), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = self.stem(x)
        last = self.act(self.dense(first.permute(0, 2, 3, 1)) + self.place)
        mixed = last.permute(0, 3, 1, 2) + first
        logits: Tensor = self.top(mixed.mean((2, 3)))
        return logits


class Viewed(nn.Module):
    """Spells out the sizes of its map, so that a larger picture becomes more rows."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.stem, self.act = nn.Conv2d(3, 6, 1), nn.ReLU()
        self.deep, self.top = nn.Conv2d(6, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = self.stem(x)
        seen = self.act(first.permute(0, 2, 3, 1).reshape(-1, *self.sizes))
        mixed = seen if self.sizes[-1] == 6 else self.deep(seen * 1)
        logits: Tensor = self.top(mixed.flatten(1)[:, :6])
        return logits


@pytest.mark.parametrize(
    ("model", "place"), [(Placed(), "act"), (Viewed(8, 12, 6), "act"), (OneSize(), "mul")]
)
def test_a_tap_whose_channels_nothing_shows_is_refused(model: nn.Module, place: str) -> None:
    backbone = cut(model, [place], SAMPLE)
    with pytest.raises(CutError, match=f"'{place}' has shape .*which axis holds the channels"):
        check_taps(backbone, [place])


@pytest.mark.parametrize(
    ("model", "places"),
    [
        (Placed(), ["stem", "add_1"]),
        (Viewed(6, 8, 12), ["stem", "act", "deep"]),
        (FixedGrid(), ["stem", "pool"]),
    ],
)
def test_a_map_of_one_size_is_read_by_what_layers_on_maps_show(
    model: nn.Module, places: list[str]
) -> None:
    backbone = cut(model, places, SAMPLE)
    check_taps(backbone, backbone.cuts)


def test_a_larger_picture_that_becomes_more_rows_leaves_a_row_a_sample() -> None:
    assert by_name(Viewed(6, 8, 12))["deep"].axes == MAP
    assert by_name(Viewed(8, 12, 6))["act"].axes == ("batch", "unknown", "unknown", "unknown")
