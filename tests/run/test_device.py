from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch, SLViT
from offramp.data import Samples
from offramp.data.images import labelled_pictures
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import ModelInfo, Trial
from offramp.preprocess import ImagePreprocess
from offramp.run.measure import collect_trials, measure_model
from offramp.run.pictures import answered_pictures
from offramp.run.plan import Plan
from offramp.run.results import fixed_policy
from offramp.run.rivals import static_rivals
from offramp.run.steps import evaluate, train

CLASSES = 3
SPECS = (SLViT(patch=3, dim=4, heads=1, standardise=True), ConvBranch(filters=2))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.top = nn.Linear(5, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        top: Tensor = self.top(self.norm(self.first(images)).relu().mean((2, 3)))
        return top


@pytest.fixture
def model() -> MultiExit:
    torch.manual_seed(2)
    backbone = cut(Toy(), ["first"], torch.zeros(1, 3, 12, 12))
    shapes = backbone.tap_shapes["first"]
    trials = [
        Trial("first", spec, seed, spec.build(shapes[0], CLASSES), (), 1, 1.0, 0.5)
        for spec in SPECS
        for seed in (0, 1)
    ]
    return MultiExit(
        backbone, {"first": trials[2]}, trials, info=ModelInfo(class_names=("a", "b", "c"))
    )


@pytest.fixture
def images() -> Samples:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (65, 11, 11), np.uint8)
    names = np.array([str(index) for index in range(65)])
    labels = rng.integers(0, CLASSES, 65)
    preprocess = ImagePreprocess(height=12, width=12)
    return labelled_pictures(pixels, labels, preprocess, ids=names)


def test_moving_a_model_moves_every_trial_and_the_backbone(model: MultiExit) -> None:
    model.to("meta")
    modules = [model, model.backbone, *(trial.branch for trial in model.trials)]
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    assert tensors
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert model.device.type == "meta"


def test_the_second_device_of_these_tests_refuses_the_cpu(second_device: str) -> None:
    layer = nn.Linear(3, 2).to(second_device)
    assert layer(torch.ones(1, 3).to(second_device)).cpu().shape == (1, 2)
    with pytest.raises(RuntimeError, match="two devices"):
        layer(torch.ones(1, 3))


def test_a_moved_model_answers_and_is_timed_there_with_all_trials(
    model: MultiExit, images: Samples, second_device: str
) -> None:
    here = model.collect(images), collect_trials(model, images)
    model.to(second_device)
    timings = measure_model(model, warmup=0, repeats=1)
    assert len(timings.branches) == 2
    there = model.collect(images), collect_trials(model, images, timings=timings)
    np.testing.assert_array_equal(there[0].outputs, here[0].outputs)
    np.testing.assert_array_equal(there[1].outputs, here[1].outputs)


def test_rivals_and_single_pictures_answer_where_the_model_is(
    model: MultiExit, images: Samples, second_device: str
) -> None:
    def exits() -> list[str]:
        policy = fixed_policy(model.names, 0.4)
        return [one.answer.exit for one in answered_pictures(model, images, 3, policy)]

    here = [rival.value for rival in static_rivals(model, images, images, [8])]
    answers = exits()
    model.to(second_device)
    seen: list[str] = []
    there = static_rivals(model, images, images, [8])
    assert [rival.value for rival in there] == here
    for stage in model.backbone.stages:
        stage.register_forward_pre_hook(lambda _, live: seen.append(live[0][0].device.type))
    assert exits() == answers
    assert set(seen) == {second_device}


@pytest.mark.gpu
def test_train_and_evaluate_on_a_gpu_leave_what_a_cpu_reads(tmp_path: Path) -> None:
    plan = Plan.model_validate(
        {
            "backbone": {"name": "torchvision:squeezenet1_1", "num_outputs": 10},
            "data": {"kind": "fashion_mnist", "image_size": 48, "limit": 70},
            "branches": {
                "features.4": [
                    {"kind": "slvit", "patch": 11, "dim": 4, "heads": 1},
                    {"kind": "conv", "filters": 2},
                ]
            },
            "train": {"lr": 1e-3, "seeds": [0, 1], "epochs": 1, "batch_size": 35},
            "evaluate": {"rival_sizes": [40], "rival_images": 64, "bootstrap_draws": 50},
        }
    )
    trained = train(plan, tmp_path / "run", device="cuda")
    assert trained.model.device.type == "cuda"
    on_gpu = evaluate(tmp_path / "run", device="cuda")
    on_cpu = evaluate(tmp_path / "run")
    assert "cuda" not in (tmp_path / "run" / "environment.json").read_text(encoding="utf-8")
    for row, other in zip(on_gpu.comparison.rows, on_cpu.comparison.rows, strict=True):
        assert row.value == pytest.approx(other.value, abs=0.05)
    assert MultiExit.load(tmp_path / "run").device.type == "cpu"


@pytest.mark.gpu
def test_a_model_on_a_gpu_is_timed_on_it(model: MultiExit) -> None:
    timings = measure_model(model.to("cuda"), warmup=2, repeats=5)
    assert all(timing.median_ms > 0 for timing in timings.stages)
