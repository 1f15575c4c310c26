"""A comparison to draw: two cuts, two kinds, two seeds, one impractical exit, two rivals."""

from dataclasses import replace

import numpy as np
import pytest

from offramp.answer import Answer
from offramp.evaluation import (
    Comparison,
    Rival,
    TrialOutputs,
    compare,
    tradeoff,
)
from offramp.evaluation.quality import quality
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score
from offramp.report import Curve, Picture, ReportInputs

SHARES = {
    ("a<1>", "slvit-p2", "slvit"): (0.6, 0.7),
    ("a<1>", "conv-k3", "conv"): (0.5, 0.6),
    ("b&2", "slvit-p1", "slvit"): (0.8, 0.7),
    ("b&2", "conv-k3", "conv"): (0.4, 0.5),
}
LABELS = np.arange(30) % 3


def answers(share: float) -> np.ndarray:
    right = np.arange(30) < round(30 * share)
    return np.eye(3, dtype=np.float32)[np.where(right, LABELS, (LABELS + 1) % 3)]


@pytest.fixture(scope="session")
def comparison() -> Comparison:
    rows = [(*key, seed, share) for key, of in SHARES.items() for seed, share in enumerate(of)]
    trials = TrialOutputs(
        outputs=np.stack([answers(share) for *_, share in rows]),
        final=answers(0.9),
        labels=LABELS,
        cuts=np.array([row[0] for row in rows]),
        branches=np.array([row[1] for row in rows]),
        kinds=np.array([row[2] for row in rows]),
        seeds=np.array([row[3] for row in rows]),
        params=np.array([100] * 8),
        branch_flops=np.array([2_000_000] * 8),
        cut_names=np.array(["a<1>", "b&2"]),
        stage_flops=np.array([10_000_000, 20_000_000, 70_000_000]),
        branch_ms=np.linspace(1, 2, 8),
        stage_ms=np.array([1.0, 2.0, 7.0]),
    )
    rivals = [
        Rival.measured(
            f"9 px, {note}", answers(share), LABELS, flops=40_000_000, resolution=9, note=note
        )
        for note, share in (("as is", 0.3), ("new <statistics>", 0.8))
    ]
    return compare(trials, rivals, draws=200)


def answer(name: str, exit: str, confidence: float, saved: float) -> Answer:
    return Answer(
        outputs=np.zeros(2, np.float32),
        probabilities=np.array([1 - confidence, confidence]),
        label=1,
        class_name=name,
        exit=exit,
        score=None,
        stage_ms=(1.0,),
        total_ms=2.0,
        flops=3,
        flops_saved=saved,
        promised=False,
    )


@pytest.fixture(scope="session")
def inputs(comparison: Comparison) -> ReportInputs:
    outputs = ExitOutputs(
        outputs=np.stack([answers(share) for share in (0.6, 0.8, 0.9)]),
        labels=LABELS,
        names=("a<1>", "b&2", "final"),
        stage_flops=np.array([10_000_000, 20_000_000, 70_000_000]),
        branch_flops=np.array([2_000_000, 2_000_000, 0]),
    )
    others = replace(outputs, outputs=outputs.outputs[:, ::-1], labels=LABELS[::-1])
    policy = ExitPolicy(
        score=find_score("max_softmax"), thresholds=(0.5, None), names=("a<1>", "b&2", "final")
    )
    curves = [
        Curve(row.cut, row.branch, seed, (0.9, 0.5, 0.4), (1.0, 0.6, 0.7), best_epoch=2)
        for row in comparison.rows
        for seed in row.seeds
    ]
    image = np.arange(42, dtype=np.uint8).reshape(7, 6)
    return ReportInputs(
        title="Exits on <script>alert(1)</script>",
        comparison=comparison,
        exits=tradeoff(outputs),
        quality=quality(outputs, {"at <half>": policy}, temperatures_on=others),
        curves=curves,
        pictures=[
            Picture(image, "cat & dog", answer("cat & dog", "a<1>", 0.97, 0.88)),
            Picture(np.stack([image] * 3, axis=-1), "<b>", answer("cat", "final", 0.4, -0.04)),
        ],
        facts={"machine": "2 <cores>", "versions": "numpy 2"},
        plan="backbone: {name: <any>}\n",
    )
