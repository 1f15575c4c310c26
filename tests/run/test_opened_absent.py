"""New samples that lack a sound."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, cut
from offramp.branches import ConvBranch
from offramp.errors import DataError, PlanError, ShapeError
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import ModelInfo, Trial
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, Promise, find_score
from offramp.preprocess import ImagePreprocess, SpectrogramPreprocess
from offramp.run import OpenRun

CLASSES, COUNT = 4, 23
SPEC = ConvBranch(filters=3, padding=1, hidden=6)
HEARING = SPEC.model_copy(update={"absent": "token"})


class SeenAndHeard(nn.Module):
    """Looks, listens, looks again, puts both together."""

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
QUIET = ("V1", "AV1", "V2")


def made(**specs: ConvBranch) -> MultiExit:
    torch.manual_seed(1)
    sample = torch.zeros(2, 3, 6, 4), torch.zeros(2, 7)
    backbone = cut(SeenAndHeard().eval(), [PLACES[name] for name in specs], sample)
    trials = {}
    for name, spec in specs.items():
        branch = spec.build(backbone.features(name), CLASSES).eval()
        trials[name] = Trial(name, spec, 0, branch, (), 1, 1.0, 0.5)
    return MultiExit(backbone, trials, tuple(trials.values()))


@pytest.fixture
def model() -> MultiExit:
    return made(V1=SPEC, AV1=HEARING, V2=SPEC, AV2=SPEC)


def arrays() -> tuple[Any, Any]:
    drawn = np.random.default_rng(3)
    shapes = (COUNT, 3, 6, 4), (COUNT, 7)
    first, second = (drawn.normal(size=shape).astype(np.float32) for shape in shapes)
    return first, second


def quiet() -> list[tuple[Any, None]]:
    return [(picture, None) for picture in arrays()[0]]


def collected(model: MultiExit, **settings: Any) -> ExitOutputs:
    tensors = tuple(map(torch.from_numpy, arrays()))
    return model.collect((tensors, np.arange(COUNT) % CLASSES), **settings)


def promising(
    rows: ExitOutputs, temperatures: tuple[float, ...] | None = None, name: str = "max_softmax"
) -> ExitPolicy:
    """A policy with a promise under which about a third of the rows leaves at each early exit."""
    score = find_score(name)
    return ExitPolicy(
        score=score,
        names=tuple(rows.names),
        thresholds=tuple(float(np.quantile(each, 0.66)) for each in score.of(rows, temperatures)),
        temperatures=temperatures,
        promise=Promise(
            goal="max_drop", limit=0.02, confidence=0.95, method="ltt", num_samples=9, estimate=0.0
        ),
        source=rows.source,
    )


def test_without_a_policy_the_last_exit_that_needs_no_sound_answers(model: MultiExit) -> None:
    rows = collected(model, without="sound")
    found = OpenRun(model).run_batch(quiet())
    assert {answer.exit for answer in found} == {"V2"}
    outputs = [answer.outputs for answer in found]
    np.testing.assert_allclose(outputs, rows.outputs[2], rtol=1e-5, atol=1e-6)
    assert {answer.flops for answer in found} == {int(rows.own_path_cost()[2])}
    assert all(answer.absent == ("sound",) and not answer.promised for answer in found)
    assert found[0].flops_saved == 1 - found[0].flops / sum(model.backbone.stage_flops())


@pytest.mark.parametrize("temperatures", [None, (0.5, 2.0, 3.0, 0.7)])
def test_a_policy_for_all_inputs_uses_the_exits_that_need_no_sound_without_its_promise(
    model: MultiExit, temperatures: tuple[float, ...] | None
) -> None:
    policy, rows = promising(collected(model), temperatures), collected(model, without="sound")
    opened, rest = OpenRun(model, [policy]), policy.only(QUIET)
    found = opened.run_batch(quiet())
    assert [answer.exit for answer in found] == [QUIET[e] for e in rest.choose(rows)]
    assert {answer.exit for answer in found} > {"V2"}
    np.testing.assert_array_equal([answer.flops for answer in found], rest.cost(rows))
    assert not any(answer.promised for answer in found)
    assert opened.run(next(iter(zip(*arrays(), strict=True)))).promised


@pytest.mark.parametrize("score", ["margin", "patience", "given"])
def test_any_score_chooses_without_a_sound_as_on_outputs_collected_without_it(score: str) -> None:
    specs = {"V1": SPEC, "AV1": HEARING, "V2": SPEC, "AV2": SPEC}
    predicting = {"error_predictor": score == "given"}
    model = made(**{at: spec.model_copy(update=predicting) for at, spec in specs.items()})
    rows = collected(model, without="sound")
    whole, lacking = promising(collected(model), name=score), promising(rows, name=score)
    for policy, rule in ((whole, whole.only(QUIET)), (lacking, lacking)):
        found = OpenRun(model).run_batch(quiet(), policy)
        assert [answer.exit for answer in found] == [QUIET[e] for e in rule.choose(rows)]
        np.testing.assert_array_equal([answer.flops for answer in found], rule.cost(rows))


def test_samples_with_and_without_a_sound_together_get_the_answers_they_get_alone(
    model: MultiExit,
) -> None:
    samples = [
        (picture, None if row % 3 == 1 else sound)
        for row, (picture, sound) in enumerate(zip(*arrays(), strict=True))
    ]
    opened = OpenRun(model, [promising(collected(model))])
    for sample, together in zip(samples, opened.run_batch(samples), strict=True):
        alone = opened.run(sample)
        assert (together.exit, together.absent) == (alone.exit, alone.absent)
        assert together.absent == (() if sample[1] is not None else ("sound",))
        assert together.promised is not bool(together.absent)
        np.testing.assert_allclose(together.outputs, alone.outputs, rtol=1e-5, atol=1e-6)


def test_a_policy_calibrated_without_a_sound_leaves_it_out_and_is_promised(
    model: MultiExit,
) -> None:
    rows = collected(model, without="sound")
    policy = promising(rows)
    assert policy.without == ("sound",)
    opened, unread = OpenRun(model), Path("none.wav")
    for sounds in ([None] * COUNT, [unread] * COUNT):
        found = opened.run_batch(list(zip(arrays()[0], sounds, strict=True)), policy)
        assert [answer.exit for answer in found] == [QUIET[e] for e in policy.choose(rows)]
        assert all(answer.promised and answer.absent == ("sound",) for answer in found)


def limited(policy: ExitPolicy, limit: float, goal: str = "max_drop") -> ExitPolicy:
    assert policy.promise is not None
    changes = {"limit": limit, "goal": goal}
    return dataclasses.replace(policy, promise=policy.promise.model_copy(update=changes))


def test_each_sample_is_answered_by_the_policy_for_the_inputs_that_it_has(
    model: MultiExit,
) -> None:
    whole, lacking = promising(collected(model)), promising(collected(model, without="sound"))
    policies = [limited(each, limit) for each in (whole, lacking) for limit in (0.01, 0.03)]
    opened = OpenRun(model, policies)
    assert opened.policies == (policies[0], policies[1])
    assert opened.policies_without == {("sound",): (policies[2], policies[3])}
    assert [opened.chosen(limit) for limit in (None, 0.02, 0.03)] == [
        *policies[:1] * 2,
        policies[1],
    ]
    chosen = [opened.chosen(limit, ["sound"]) for limit in (None, 0.02, 0.03)]
    assert chosen == [policies[2], policies[2], policies[3]]
    pair = [next(iter(zip(*arrays(), strict=True))), quiet()[0]]
    assert [answer.promised for answer in opened.run_batch(pair)] == [True, True]
    assert not OpenRun(model, policies[:2]).run(pair[1]).promised


def test_a_limit_that_is_not_promised_without_a_sound_gives_an_answer_without_a_promise(
    model: MultiExit,
) -> None:
    whole, lacking = promising(collected(model)), promising(collected(model, without="sound"))
    for other in (limited(lacking, 0.05), limited(lacking, 0.01, "max_disagreement")):
        chosen = OpenRun(model, [limited(whole, 0.02), other]).chosen(0.02, ["sound"])
        assert chosen is not None
        assert (chosen.names, chosen.promise) == (QUIET, None)


def test_a_policy_for_samples_without_a_sound_is_not_used_for_others(model: MultiExit) -> None:
    opened = OpenRun(model, [promising(collected(model, without="sound"))])
    assert opened.policies == ()
    whole = opened.run(next(iter(zip(*arrays(), strict=True))))
    assert (whole.exit, whole.absent, whole.promised) == ("final", (), False)
    assert opened.run(quiet()[0]).promised


def test_an_exit_that_refuses_in_between_is_left_out() -> None:
    model = made(V1=SPEC, AV1=SPEC, V2=SPEC)
    policy = dataclasses.replace(promising(collected(model)), thresholds=(None, 0.0, None))
    opened = OpenRun(model, [policy])
    assert opened.run((arrays()[0][0], arrays()[1][0])).exit == "AV1"
    answer = opened.run((arrays()[0][0], None))
    assert (answer.exit, answer.absent) == ("V2", ("sound",))
    assert len(answer.stage_ms) == 3


def test_a_sample_that_no_exit_can_answer_is_refused_and_named_in_a_batch() -> None:
    opened = OpenRun(made(AV1=SPEC, AV2=SPEC))
    text = r"'AV1', 'AV2', 'final' cannot answer without input 1 \('sound'\).* No exit can"
    with pytest.raises(DataError, match=f"^{text}"):
        opened.run(quiet()[0])
    whole = tuple(each[0] for each in arrays())
    with pytest.raises(DataError, match=f"^sample 1: {text}"):
        opened.run_batch([whole, quiet()[0]])
    for nothing in ((None, None), (None, whole[1])):
        with pytest.raises(DataError, match="cannot answer without input 0"):
            opened.run(nothing)


def test_what_is_there_is_checked_where_the_sound_is_absent(model: MultiExit) -> None:
    opened = OpenRun(model)
    with pytest.raises(ShapeError, match=r"shape \(3, 4, 6\), None, and the model reads \(3, 6"):
        opened.run((np.zeros((3, 4, 6), np.float32), None))
    with pytest.raises(ShapeError, match="is int64, and the model reads float32"):
        opened.run((np.zeros((3, 6, 4), np.int64), None))


def test_a_policy_without_an_input_must_be_for_the_exits_that_need_none(model: MultiExit) -> None:
    policy = promising(collected(model, without="sound"))
    with pytest.raises(ShapeError, match=r"for exits \['V1', 'AV1', 'V2'\], but here they are"):
        OpenRun(made(V1=SPEC, AV1=SPEC, V2=SPEC)).run(quiet()[0], policy)
    with pytest.raises(PlanError, match="no input 'audio'"):
        OpenRun(model).run(quiet()[0], dataclasses.replace(policy, source={"without": ["audio"]}))


def with_files(model: MultiExit) -> OpenRun:
    sound = SpectrogramPreprocess.model_validate(
        {"rate": 8000, "num_samples": 400, "channels": [{"window": 64, "step": 32, "fft": 64}]}
    )
    model.info = ModelInfo(None, (ImagePreprocess(height=6, width=4), sound), ())
    return OpenRun(model)


def test_files_of_a_picture_without_a_sound_are_refused_or_none_in_its_place(
    model: MultiExit, tmp_path: Path
) -> None:
    opened, picture = with_files(model), tmp_path / "a.png"
    assert opened.files_of(str(picture)) == str(picture)  # reading it says that it is missing
    picture.touch()
    with pytest.raises(DataError) as caught:
        opened.files_of(str(picture))
    assert str(caught.value) == (
        f"{picture} has no sound file beside it, and the model also reads a sound. Put a.wav there "
        "(or .au, .flac, .ogg, .mp3), or let 'V1' or 'AV1' or 'V2' answer without it: --absent "
        "answer (in Python, absent='answer')."
    )
    assert opened.files_of(str(picture), "answer") == (str(picture), None)
    (tmp_path / "a.wav").touch()
    for where in ("answer", "refuse"):
        found = opened.files_of(str(picture), where)
        assert found == (str(picture), tmp_path / "a.wav")
    (tmp_path / "a.au").touch()
    with pytest.raises(DataError, match=r"has a\.wav and a\.au beside it, and the model reads one"):
        opened.files_of(str(picture), "answer")


def test_files_of_a_picture_without_a_sound_are_refused_where_no_exit_can_do_without(
    tmp_path: Path,
) -> None:
    picture = tmp_path / "a.png"
    picture.touch()
    with pytest.raises(DataError, match=r"Put a\.wav there .*\. No exit of this model answers"):
        with_files(made(AV2=SPEC)).files_of(str(picture), "answer")
