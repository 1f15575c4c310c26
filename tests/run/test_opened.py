import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch
from offramp.errors import DataError, OfframpError, PlanError, ShapeError
from offramp.multiexit.model import MultiExit
from offramp.multiexit.routing import rows_are_apart
from offramp.multiexit.trial import ModelInfo, Trial
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, Promise, PromiseWarning, find_score
from offramp.preprocess import ImagePreprocess
from offramp.run import OpenRun
from offramp.task import Task

SIZE = (9, 7)
CLASSES = 5


class Toy(nn.Module):
    """(B, 3, 9, 7) to (B, outputs), with three places to cut at."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.third = nn.Conv2d(6, 8, 3, padding=1)
        self.top = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images).relu()
        top: Tensor = self.top(self.third(self.second(x).relu()).mean((2, 3)))
        return top


def made(outputs: int = CLASSES, task: Task = "classification", **changes: Any) -> MultiExit:
    torch.manual_seed(4)
    backbone = cut(Toy(outputs).eval(), ["first", "second", "third"], torch.zeros(1, 3, *SIZE))
    answers = 2 if task == "classification" and outputs == 1 else outputs
    spec = ConvBranch(filters=2, hidden=3, pool=1, **changes)
    chosen = {
        name: Trial(name, spec, 0, spec.build(backbone.features(name), answers).eval(), (), 1, 1, 1)
        for name in ("first", "third")
    }
    names = tuple("abcde")[:answers] if task == "classification" else ()
    info = ModelInfo(None, (ImagePreprocess(height=SIZE[0], width=SIZE[1]),), names)
    return MultiExit(backbone, chosen, tuple(chosen.values()), task=task, info=info)


@pytest.fixture
def model() -> MultiExit:
    return made()


def samples(count: int = 61) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(count, 3, *SIZE)).astype(np.float32)


def collected(model: MultiExit) -> ExitOutputs:
    labels = np.arange(61) % model.num_outputs
    targets = labels if model.task == "classification" else labels.astype(np.float32)
    return model.collect((samples(), targets))


def splitting(
    model: MultiExit, score: str = "max_softmax", temperatures: tuple[float, ...] | None = None
) -> ExitPolicy:
    """A policy under which about a third of the samples leaves at each exit."""
    rule = find_score(score)
    first, second = rule.of(collected(model), temperatures)
    thresholds = tuple(_two_thirds_up(scores) for scores in (first, second))
    return ExitPolicy(
        score=rule, names=model.names, thresholds=thresholds, temperatures=temperatures
    )


def _two_thirds_up(scores: NDArray[np.float64]) -> float | None:
    """Between two scores, so that rounding moves no sample; None where all are equal."""
    levels = np.unique(scores[np.isfinite(scores)])
    place = 2 * len(levels) // 3
    return None if len(levels) < 2 else float((levels[place - 1] + levels[place]) / 2)


@pytest.mark.filterwarnings("ignore::offramp.doubts.DoubtWarning")
@pytest.mark.parametrize(
    ("outputs", "task", "score", "temperatures", "settings"),
    [
        (CLASSES, "classification", "max_softmax", None, {}),
        (CLASSES, "classification", "entropy", (0.5, 3.0), {}),
        (CLASSES, "classification", "patience", None, {}),
        (CLASSES, "classification", "given", None, {"error_predictor": True}),
        (1, "classification", "margin", None, {}),
        (1, "regression", "agreement", None, {}),
    ],
)
def test_every_sample_of_a_split_gets_the_exit_and_answer_that_the_policy_chooses_on_arrays(
    outputs: int,
    task: Task,
    score: str,
    temperatures: tuple[float, ...] | None,
    settings: dict[str, Any],
) -> None:
    model = made(outputs, task, **settings)
    policy, rows = splitting(model, score, temperatures), collected(model)
    opened = OpenRun(model, [policy])
    for found in (opened.run_batch(samples()), [opened.run(each) for each in samples()]):
        assert [answer.exit for answer in found] == [model.names[e] for e in policy.choose(rows)]
        answered = np.stack([answer.outputs for answer in found])
        np.testing.assert_allclose(answered, policy.answers(rows), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal([answer.flops for answer in found], policy.cost(rows))
        if task == "classification":
            labels = [answer.label for answer in found]
            np.testing.assert_array_equal(labels, policy.answers(rows).argmax(axis=1))
    assert len({answer.exit for answer in found}) >= 2


@pytest.fixture
def opened(model: MultiExit) -> OpenRun:
    opened = OpenRun(model)
    opened.run_batch(samples()[:2])  # now all that is found out once has been
    return opened


@pytest.fixture
def ran(model: MultiExit, opened: OpenRun) -> dict[str, list[int]]:
    """Grows by the number of samples whenever a stage or a branch runs."""
    calls: dict[str, list[int]] = {}
    parts = {f"stage {place}": stage for place, stage in enumerate(model.backbone.stages)}
    parts |= {f"branch {name}": trial.branch for name, trial in model.chosen.items()}
    for name, part in parts.items():
        calls[name] = []
        part.register_forward_hook(
            lambda _m, _i, out, at=calls[name]: at.append(
                len(out[0][0]) if isinstance(out, tuple) else len(out)
            )
        )
    return calls


def at(model: MultiExit, *thresholds: float | None) -> ExitPolicy:
    score = find_score("max_softmax")
    return ExitPolicy(score=score, names=model.names, thresholds=thresholds)


def counts(ran: dict[str, list[int]]) -> dict[str, list[int]]:
    return {name: sizes for name, sizes in ran.items() if sizes}


def test_no_stage_runs_after_the_exit_that_answers(
    model: MultiExit, opened: OpenRun, ran: dict[str, list[int]]
) -> None:
    answer = opened.run(samples()[0], at(model, 0.0, 0.0))
    assert counts(ran) == {"stage 0": [1], "branch first": [1]}
    assert (answer.exit, len(answer.stage_ms)) == ("first", 1)


def test_a_branch_that_is_disabled_does_not_run(
    model: MultiExit, opened: OpenRun, ran: dict[str, list[int]]
) -> None:
    answer = opened.run(samples()[0], at(model, None, 0.0))
    assert set(counts(ran)) == {"stage 0", "stage 1", "stage 2", "branch third"}
    assert (answer.exit, len(answer.stage_ms)) == ("third", 3)


def test_without_a_policy_the_full_network_answers_and_no_branch_runs(
    opened: OpenRun, ran: dict[str, list[int]]
) -> None:
    answer = opened.run(samples()[0])
    assert set(counts(ran)) == {f"stage {place}" for place in range(4)}
    assert (answer.exit, answer.flops_saved, answer.promised) == ("final", 0, False)


def test_samples_that_have_left_are_removed_between_stages(
    model: MultiExit, opened: OpenRun, ran: dict[str, list[int]]
) -> None:
    policy = splitting(model)
    exits = np.bincount(policy.choose(collected(model)), minlength=3)
    for sizes in ran.values():
        sizes.clear()
    opened.run_batch(samples(), policy)
    stayed = 61 - exits[0]
    assert ran["stage 0"] == ran["branch first"] == [61]
    assert ran["stage 1"] == ran["stage 2"] == ran["branch third"] == [stayed]
    assert ran["stage 3"] == [exits[2]]


class Folding(nn.Module):
    """Puts the two halves of each picture into the batch axis between its convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, CLASSES, 3)

    def forward(self, images: Tensor) -> Tensor:
        halves = torch.cat(self.first(images).chunk(2, dim=2))
        answers: Tensor = self.second(halves).mean((2, 3)).reshape(2, -1, CLASSES).mean(0)
        return answers


def test_samples_that_share_an_axis_at_a_cut_run_one_by_one() -> None:
    backbone = cut(Folding().eval(), ["cat"], torch.zeros(1, 3, 8, 7))
    model = MultiExit(backbone, {})
    assert not rows_are_apart(model)
    inputs = samples()[:, :, :8]
    found = [answer.outputs for answer in OpenRun(model).run_batch(inputs[:3])]
    np.testing.assert_allclose(found, model(torch.from_numpy(inputs[:3]))[0], rtol=1e-5, atol=1e-6)


def picture() -> tuple[NDArray[np.uint8], bytes]:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 11, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return pixels, content.getvalue()


def test_a_path_bytes_pixels_and_a_prepared_array_give_the_same_answer(
    model: MultiExit, tmp_path: Path
) -> None:
    pixels, content = picture()
    (tmp_path / "a.png").write_bytes(content)
    prepared = ImagePreprocess(height=SIZE[0], width=SIZE[1])(pixels)
    opened = OpenRun(model)
    given = [tmp_path / "a.png", str(tmp_path / "a.png"), content, pixels, prepared, (prepared,)]
    found = [opened.run(each) for each in given]
    for answer in found[1:]:
        np.testing.assert_array_equal(answer.outputs, found[0].outputs)
    assert found[0].class_name in set("abcde")


PROMISE = Promise(
    goal="max_drop", limit=0.02, confidence=0.95, method="ltt", num_samples=9, estimate=0.0
)


def certified(model: MultiExit, limit: float, **source: str) -> ExitPolicy:
    return dataclasses.replace(
        at(model, 0.1, 0.1),
        promise=PROMISE.model_copy(update={"limit": limit}),
        source={**model.source(), **source},
    )


def test_an_answer_is_promised_where_the_policy_carries_a_promise(model: MultiExit) -> None:
    opened = OpenRun(model, [certified(model, 0.02)])
    assert opened.run(samples()[0]).promised
    assert not opened.run(samples()[0], at(model, 0.5, 0.5)).promised


def test_a_promise_for_another_precision_is_dropped_with_a_warning(model: MultiExit) -> None:
    opened = OpenRun(model, [certified(model, 0.02, precision="bf16")])
    with pytest.warns(PromiseWarning, match="precision is fp32"):
        assert not opened.run(samples()[0]).promised


def test_a_limit_picks_from_the_menu_and_none_means_its_strictest(model: MultiExit) -> None:
    menu = [certified(model, limit) for limit in (0.01, 0.03)]
    opened = OpenRun(model, menu)
    assert [opened.chosen(limit) for limit in (None, 0.02, 0.03)] == [menu[0], menu[0], menu[1]]
    with pytest.raises(PlanError, match=r"no policy for 0\.005"):
        opened.run(samples()[0], 0.005)


def test_a_limit_without_a_promise_to_pick_from_is_refused(model: MultiExit) -> None:
    with pytest.raises(PlanError, match="no policy here carries a promise"):
        OpenRun(model, [at(model, 0.5, 0.5)]).run(samples()[0], 0.01)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Path("none.png"), "none.png cannot be read: No such file"),
        (b"no picture", "the picture cannot be read: its content is not a picture"),
        (np.zeros((3, 7, 9), np.float32), r"shape \(3, 7, 9\), and the model reads \(3, 9, 7\)"),
        (np.full((3, *SIZE), np.nan, np.float32), "not finite"),
        (np.zeros((3, *SIZE), np.int64), "is int64, and the model reads float32"),
        ((b"a", b"b"), "cannot be read"),
        (7, "a sample cannot be a int"),
        (torch.zeros(3, *SIZE), "a sample cannot be a Tensor"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_and_named_in_a_batch(
    model: MultiExit, wrong: Any, text: str
) -> None:
    opened = OpenRun(model)
    with pytest.raises(OfframpError, match=f"^(?!sample).*{text}"):
        opened.run(wrong)
    with pytest.raises(OfframpError, match=f"^sample 1: .*{text}"):
        opened.run_batch([samples()[0], wrong])


def test_files_are_refused_where_no_preprocessing_is_stored(model: MultiExit) -> None:
    model.info = ModelInfo()
    with pytest.raises(DataError, match="does not know how to prepare files"):
        OpenRun(model).run("a.png")
    assert OpenRun(model).run(samples()[0]).class_name is None


def test_a_policy_for_other_exits_is_refused(model: MultiExit) -> None:
    other = ExitPolicy(score=find_score("margin"), names=("a", "final"), thresholds=(0.5,))
    with pytest.raises(ShapeError, match=r"for exits \['a', 'final'\]"):
        OpenRun(model).run(samples()[0], other)


def test_times_are_those_of_the_clock_shared_by_samples_that_run_together(
    model: MultiExit,
) -> None:
    now = iter(range(99))
    opened = OpenRun(model, clock=lambda: next(now))
    one = opened.run(samples()[0])
    assert (one.stage_ms, one.total_ms) == ((1000.0,) * 4, 5000.0)
    for answer in opened.run_batch(samples()[:2]):
        assert (answer.stage_ms, answer.total_ms) == ((500.0,) * 4, 3000.0)


def test_no_samples_give_no_answers(model: MultiExit) -> None:
    assert OpenRun(model).run_batch([]) == []
