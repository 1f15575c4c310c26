"""A model whose sound may be absent."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, cut
from offramp.branches import ConvBranch
from offramp.errors import ArgumentError, DataError, PlanError, ShapeError
from offramp.evaluation import tradeoff
from offramp.multiexit.model import ExitTimings, MultiExit
from offramp.multiexit.trial import Trial

CLASSES, COUNT = 4, 11
SPEC = ConvBranch(filters=3, padding=1, hidden=6)
HEARING = SPEC.model_copy(update={"absent": "token"})


class SeenAndHeard(nn.Module):
    """Looks, listens, puts both together, looks again."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 5, 3, padding=1)
        self.hear = nn.Linear(7, 5)
        self.look = nn.Conv2d(5, 6, 3, padding=1)
        self.answer = nn.Linear(6, CLASSES)

    def forward(self, picture: Tensor, sound: Tensor) -> Tensor:
        seen = self.see(picture)
        heard = self.hear(sound)
        both = self.look(seen) * heard.mean(1)[:, None, None, None]
        answer: Tensor = self.answer(both.mean(dim=(2, 3)))
        return answer


PLACES = {
    "V1": Cut("V1", taps=("see",)),
    "AV1": Cut("AV1", taps=("see", "hear")),
    "V2": Cut("V2", taps=("look",)),
    "AV2": Cut("AV2", taps=("mul",)),
}


def inputs(batch: int = COUNT) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 6, 4, generator=drawn), torch.randn(batch, 7, generator=drawn)


def made(specs: dict[str, ConvBranch]) -> MultiExit:
    torch.manual_seed(1)
    backbone = cut(SeenAndHeard().eval(), [PLACES[name] for name in specs], inputs(2))
    trials = {}
    for name, spec in specs.items():
        branch = spec.build(backbone.features(name), CLASSES).eval()
        trials[name] = Trial(name, spec, 0, branch, (), 1, 1.0, 0.5)
    return MultiExit(backbone, trials, tuple(trials.values()))


@pytest.fixture
def model() -> MultiExit:
    return made({"V1": SPEC, "AV1": HEARING, "V2": SPEC, "AV2": SPEC})


@pytest.fixture
def labels() -> Any:
    return np.arange(COUNT) % CLASSES


def test_exits_that_need_no_sound_answer_and_the_others_refuse(model: MultiExit) -> None:
    picture, sound = inputs()
    walk = model.walk(picture, None)
    quiet = dict(next(walk) for _ in range(3))
    assert list(quiet) == ["V1", "AV1", "V2"]
    with pytest.raises(DataError) as caught:
        next(walk)
    assert str(caught.value) == (
        "'AV2', 'final' cannot answer without input 1 ('sound'), which is absent. 'V1', "
        "'AV1', 'V2' can answer without it: the model's walk() and collect(data, without=[1]) give "
        "these answers."
    )
    whole = dict(model.walk(picture, sound))
    assert torch.equal(quiet["V1"], whole["V1"])
    torch.testing.assert_close(quiet["V2"], whole["V2"])
    _, (seen,) = model.backbone.stages[0]((picture, sound))
    learned = model.chosen["AV1"].branch(seen, torch.full((COUNT, 5), torch.nan))
    assert torch.equal(quiet["AV1"], learned)
    assert not torch.allclose(quiet["AV1"], whole["AV1"])


def test_an_exit_without_a_token_is_passed_over(model: MultiExit) -> None:
    refusing = made({"V1": SPEC, "AV1": SPEC, "V2": SPEC})
    walk = refusing.walk(inputs()[0], None)
    assert [next(walk)[0], next(walk)[0]] == ["V1", "V2"]
    with pytest.raises(DataError, match="'AV1', 'final' cannot answer without input 1"):
        next(walk)
    assert refusing.exits_without("sound") == ("V1", "V2")
    assert model.exits_without([1]) == ("V1", "AV1", "V2")
    assert model.exits_without("picture") == ()


def test_nothing_that_needs_the_sound_runs(model: MultiExit) -> None:
    calls: list[str] = []
    for index, stage in enumerate(model.backbone.stages):
        for name, module in stage.named_modules():
            if name:
                module.register_forward_hook(lambda *_, n=f"{index} {name}": calls.append(n))
    walk = model.walk(inputs()[0], None)
    for _ in range(3):
        next(walk)
    with pytest.raises(DataError):
        next(walk)
    ran = [name for name in calls if name.endswith(("see", "hear", "look", "answer"))]
    assert [name.split(".")[-1].split()[-1] for name in ran] == ["see", "look"]


def test_asking_every_exit_without_a_sound_is_refused_before_anything_runs(
    model: MultiExit,
) -> None:
    with pytest.raises(DataError, match="'AV2', 'final' cannot answer without input 1"):
        model(inputs()[0], None)
    with pytest.raises(DataError, match="No exit can"):
        next(model.walk(None, inputs()[1]))
    with pytest.raises(ArgumentError, match="input 0"):
        next(model.walk(None, None))
    with pytest.raises(ShapeError, match="None"):
        next(model.walk(inputs()[1], None))


def test_collecting_without_a_sound_gives_the_exits_that_can(model: MultiExit, labels: Any) -> None:
    pair = (inputs(), labels)
    quiet, whole = model.collect(pair, without="sound", batch_size=4), model.collect(pair)
    assert quiet.names == ("V1", "AV1", "V2")
    np.testing.assert_allclose(quiet.outputs[[0, 2]], whole.outputs[[0, 2]], rtol=1e-5, atol=1e-6)
    walk = model.walk(inputs()[0], None)
    for answers in quiet.outputs:
        walked = next(walk)[1].detach().numpy()
        np.testing.assert_allclose(answers, walked, rtol=1e-5, atol=1e-6)
    assert quiet.source is not None
    assert quiet.source["without"] == ["sound"]
    assert len(tradeoff(quiet)) == 3


def test_what_is_not_computed_without_a_sound_costs_nothing(model: MultiExit, labels: Any) -> None:
    pair = (inputs(), labels)
    quiet, whole = model.collect(pair, without=1), model.collect(pair)
    hearing = 2 * 7 * 5
    assert whole.stage_flops[1] - quiet.stage_flops[1] == hearing
    assert quiet.stage_flops[0] == whole.stage_flops[0]
    assert quiet.branch_flops.tolist() == [*whole.branch_flops[:2], 0]  # the last ends the network
    assert quiet.own_path_cost()[2] == whole.own_path_cost()[2] - hearing


def test_leaving_nothing_out_gives_every_exit(model: MultiExit, labels: Any) -> None:
    pair = (inputs(), labels)
    assert model.collect(pair, without=()).names == model.collect(pair).names


class Quiet:
    """Samples, some of which have no sound."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, row: int) -> tuple[tuple[Tensor, Tensor | None], int]:
        picture, sound = (each[row] for each in inputs())
        return (picture, None if row in (3, 8) else sound), row % CLASSES


def test_data_that_lacks_a_sound_is_refused_and_answered_without(model: MultiExit) -> None:
    with pytest.raises(DataError) as caught:
        model.collect(Quiet())
    assert str(caught.value).startswith(
        "sample 3 lacks input 1 ('sound'): 'AV2', 'final' cannot answer without input 1"
    )
    assert "collect(data, without=[1]) give these answers" in str(caught.value)
    quiet = model.collect(Quiet(), without=["sound"], batch_size=4)
    assert np.isfinite(quiet.outputs).all()


def test_an_error_predictor_scores_also_without_a_sound(labels: Any) -> None:
    spec, hearing = (each.model_copy(update={"error_predictor": True}) for each in (SPEC, HEARING))
    quiet = made({"V1": spec, "AV1": hearing}).collect((inputs(), labels), without=1)
    assert quiet.scores is not None
    assert quiet.scores.shape == (2, COUNT)


def test_what_cannot_be_collected_without_an_input_is_refused(
    model: MultiExit, labels: Any
) -> None:
    pair = (inputs(), labels)
    with pytest.raises(DataError, match="No exit can"):
        model.collect(pair, without="picture")
    with pytest.raises(PlanError, match="no input 'audio'"):
        model.collect(pair, without="audio")
    timings = ExitTimings((1.0,) * 5, (1.0,) * 4 + (0.0,))
    with pytest.raises(PlanError, match="timings are measured with all inputs"):
        model.collect(pair, without=1, timings=timings)
