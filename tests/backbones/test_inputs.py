import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.errors import ArgumentError, PlanError


class SeenAndHeard(nn.Module):
    """A picture's path and a sound's path, which meet before the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 5, 3)
        self.hear = nn.Linear(7, 5)
        self.both = nn.Linear(5, 2)

    def forward(self, picture: Tensor, sound: Tensor) -> Tensor:
        seen = self.see(picture)
        heard = self.hear(sound)
        met = seen.mean(dim=(2, 3)) * heard
        answer: Tensor = self.both(met)
        return answer


SAMPLE = torch.randn(2, 3, 6, 4), torch.randn(2, 7)


@pytest.fixture(scope="module")
def backbone() -> StagedBackbone:
    cuts: list[str | Cut] = ["see", Cut("pair", taps=("see", "hear")), "mul"]
    return cut(SeenAndHeard().eval(), cuts, SAMPLE)


def test_each_tap_names_the_inputs_that_it_is_computed_from(backbone: StagedBackbone) -> None:
    seen, heard = frozenset({0}), frozenset({1})
    assert backbone.inputs.names == ("picture", "sound")
    assert backbone.inputs.of_taps == {
        "see": (seen,),
        "pair": (seen, heard),
        "mul": (seen | heard,),
    }
    assert backbone.inputs.of_answer == seen | heard


def test_inputs_are_named_or_counted(backbone: StagedBackbone) -> None:
    inputs = backbone.inputs
    assert inputs.numbers("sound") == inputs.numbers(1) == inputs.numbers([1]) == {1}
    assert inputs.numbers(("picture", 1)) == {0, 1}
    assert inputs.text({1}) == "input 1 ('sound')"


@pytest.mark.parametrize("wrong", ["audio", 2, -1, ["sound", "audio"]])
def test_an_input_that_the_backbone_has_not_is_refused(
    backbone: StagedBackbone, wrong: object
) -> None:
    with pytest.raises(PlanError, match=r"no input .* Give names of inputs .'picture' or 'sound'"):
        backbone.inputs.numbers(wrong)  # type: ignore[arg-type]


def test_what_names_no_input_is_refused(backbone: StagedBackbone) -> None:
    with pytest.raises(ArgumentError, match="Give names of inputs"):
        backbone.inputs.numbers(None)  # type: ignore[arg-type]


def test_stages_leave_out_what_needs_an_absent_input(backbone: StagedBackbone) -> None:
    picture, _ = SAMPLE
    heard: list[object] = []
    for stage in backbone.stages:
        for name, module in stage.named_modules():
            if name.endswith("hear"):
                module.register_forward_hook(lambda *_: heard.append(1))
    whole: tuple[Tensor, ...] = SAMPLE
    partly: tuple[Tensor | None, ...] = (picture, None)
    found = []
    for stage in backbone.stages:
        partly, taps = stage(partly)
        found.append(taps)
    assert heard == []
    for stage, partial_taps in zip(backbone.stages, found, strict=True):
        whole, complete = stage(whole)
        for tap, one in zip(complete, partial_taps, strict=True):
            assert one is None or torch.equal(one, tap)
    assert [[tap is None for tap in taps] for taps in found] == [[False], [False, True], [True], []]
    assert partly == (None,)
