import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch, SLViT
from offramp.data.given import as_samples
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.run.measure import collect_trials, measure_model

CLASSES = 4
SPECS = (SLViT(patch=3, dim=4, heads=1), ConvBranch(filters=2))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 7, 3, padding=1)
        self.top = nn.Linear(7, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        top: Tensor = self.top(self.second(self.first(images)).mean((2, 3)))
        return top


@pytest.fixture
def model() -> MultiExit:
    torch.manual_seed(2)
    backbone = cut(Toy(), ["first", "second"], torch.zeros(1, 3, 9, 6))
    trials = [
        Trial(name, spec, seed, spec.build(backbone.tap_shapes[name][0], CLASSES), (), 1, 1.0, 0.5)
        for name in ("first", "second")
        for spec in SPECS
        for seed in (0, 1)
    ]
    return MultiExit(backbone, {"second": trials[4]}, trials)


def test_each_stage_and_each_distinct_branch_is_timed_once(model: MultiExit) -> None:
    ticks = itertools.count()
    told: list[tuple[int, int]] = []
    timings = measure_model(
        model,
        warmup=1,
        repeats=3,
        clock=lambda: next(ticks) / 1000,
        progress=lambda _, done, total: told.append((done, total)),
    )
    assert [t.median_ms for t in timings.stages] == pytest.approx([1.0] * 3)
    assert len(timings.branches) == 4
    assert told == [(done, 7) for done in range(1, 8)]


def test_a_cut_without_a_chosen_branch_adds_its_stage_to_the_next_exit(model: MultiExit) -> None:
    ticks = itertools.count()
    timings = measure_model(model, warmup=0, repeats=2, clock=lambda: next(ticks) / 1000)
    exits = timings.of_exits(model)
    assert exits.stage_ms == pytest.approx((2.0, 1.0))
    assert exits.branch_ms == pytest.approx((1.0, 0.0))


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.float16, "fp16"),
        (torch.bfloat16, "bf16"),
        (torch.float64, "fp64"),
        (torch.float32, "fp32"),
    ],
)
def test_a_model_of_any_precision_is_timed_answers_and_says_its_precision(
    model: MultiExit, dtype: torch.dtype, name: str
) -> None:
    model.to(dtype)
    timings = measure_model(model, warmup=0, repeats=1)
    data = np.zeros((3, 3, 9, 6), np.float32), np.arange(3)
    outputs = model.collect(data, timings=timings.of_exits(model))
    assert outputs.source is not None
    assert outputs.source["precision"] == name
    assert outputs.source["model"] == model.digest()


def test_every_trial_answers_in_one_pass(model: MultiExit) -> None:
    passes: list[int] = []
    model.backbone.stages[0].register_forward_hook(lambda *_: passes.append(1))
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(5, 3, 9, 6)).astype(np.float32)
    data = inputs, rng.integers(0, CLASSES, 5)
    outputs = collect_trials(model, data)
    assert outputs.outputs.shape == (8, 5, CLASSES)
    assert outputs.cuts.tolist() == ["first"] * 4 + ["second"] * 4
    assert outputs.seeds.tolist() == [0, 1] * 4
    tap = model.backbone.stages[0]((torch.from_numpy(inputs),))[1]
    expected = model.trials[3].branch.eval()(*tap).detach().numpy()
    np.testing.assert_allclose(outputs.outputs[3], expected, rtol=1e-5, atol=1e-6)


def test_trials_know_the_clusters_of_their_samples(model: MultiExit) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(5, 3, 9, 6)).astype(np.float32)
    clusters = np.array(["a", "a", "b", "b", "b"])
    samples = replace(as_samples((inputs, rng.integers(0, CLASSES, 5))), clusters=clusters)
    assert collect_trials(model, samples).clusters is not None
    np.testing.assert_array_equal(collect_trials(model, samples).units, [0, 0, 1, 1, 1])
