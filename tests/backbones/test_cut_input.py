from typing import Any

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, cut
from offramp.errors import CutError


class Branching(nn.Module):
    """Two convolutions side by side, then a third on their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 5, 1)
        self.right = nn.Conv2d(3, 5, 1)
        self.last = nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.left(x) + self.right(x)).mean((2, 3))
        return answer


def refusal(after: Any) -> str:
    with pytest.raises(CutError) as caught:
        cut(Branching(), after, torch.zeros(1, 3, 4, 6))
    return str(caught.value)


def test_a_place_given_without_its_list_is_answered_with_the_list() -> None:
    assert "after=['left']" in refusal("left")
    assert "after=[Cut('both', ...)]" in refusal(Cut("both", taps=("left", "right")))


def test_places_of_a_cut_given_as_lists_become_tuples() -> None:
    after: Any = ["right"]
    taps: Any = ["left"]
    given = Cut("both", after, taps)
    assert given == Cut("both", ("right",), ("left",))
    assert hash(given) == hash(Cut("both", ("right",), ("left",)))


def test_cuts_at_one_place_are_the_two_that_are_named() -> None:
    both = Cut("both", taps=("left", "right"))
    told = refusal(["left", both, Cut("again", taps=("right", "left")), "last"])
    assert "Cuts 'both' and 'again' are at the same place" in told


def test_a_cut_that_earlier_cuts_cover_together_is_refused() -> None:
    told = refusal(["left", "right", Cut("both", taps=("left", "right"))])
    assert "The stage of cut 'both' would be empty" in told
    assert "('left', 'right') together" in told


def test_after_must_be_a_list() -> None:
    assert "after is a list of places, not None" in refusal(None)


def test_a_sample_is_not_empty_and_finite() -> None:
    for sample, text in (
        (torch.zeros(0, 3, 4, 6), "sample is empty: 0x3x4x6"),
        (torch.full((1, 3, 4, 6), float("nan")), "sample holds NaN or infinity"),
        (torch.full((1, 3, 4, 6), float("inf")), "sample holds NaN or infinity"),
    ):
        with pytest.raises(CutError, match=text):
            cut(Branching(), ["left"], sample)


class Failing(nn.Module):
    """Divides by zero, or decides by a value."""

    def __init__(self, by_value: bool) -> None:
        super().__init__()
        self.by_value = by_value
        self.first = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.by_value:
            return x if x.sum() > 0 else -x
        return x * (1 // 0)


@pytest.mark.parametrize(
    ("by_value", "text"),
    [(False, r"by zero\. The sample is what"), (True, r"tensor here\. A cut needs")],
)
def test_messages_of_python_end_with_a_full_stop(by_value: bool, text: str) -> None:
    with pytest.raises(CutError, match=text):
        cut(Failing(by_value), ["first"], torch.zeros(1, 3, 4, 6))
