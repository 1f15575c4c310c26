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
    assert "Cuts 'both' and 'again' are at one place" in told


def test_a_cut_that_the_earlier_ones_cover_together_is_told_so() -> None:
    told = refusal(["left", "right", Cut("both", taps=("left", "right"))])
    assert "Cut 'both' needs nothing" in told
    assert "'left', 'right' together" in told
