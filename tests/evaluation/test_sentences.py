from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offramp.evaluation import Rival, TrialOutputs, compare, verdict

Make = Callable[..., TrialOutputs]


def sentences(make_trials: Make, slvit: float, conv: float, **changes: object) -> tuple[str, ...]:
    shares = {("first", "slvit", "slvit"): [slvit] * 3, ("first", "conv", "conv"): [conv] * 3}
    return verdict(compare(make_trials(shares, samples=200, **changes)))


@pytest.mark.parametrize(
    ("slvit", "conv", "finding"),
    [
        (0.9, 0.5, "SL-ViT is better (the interval excludes 0)"),
        (0.5, 0.9, "SL-ViT is worse (the interval excludes 0)"),
        (0.7, 0.7, "no difference shown (the interval includes 0)"),
    ],
)
def test_the_finding_depends_on_the_interval(
    make_trials: Make, slvit: float, conv: float, finding: str
) -> None:
    (found, *_) = sentences(make_trials, slvit, conv, final=0.99)
    assert found.startswith("SL-ViT (slvit) minus CNN (conv) at first: ")
    assert f"{100 * (slvit - conv):+.2f} points [" in found
    assert found.endswith(f"3 seeds: {finding}.")


def test_a_smaller_error_is_called_better() -> None:
    values = np.array([[[1.0]] * 5, [[3.0]] * 5], np.float32)
    make: Any = TrialOutputs  # takes whatever numpy makes arrays of
    trials = make(
        outputs=values,
        final=np.zeros((5, 1)),
        labels=np.zeros(5),
        task="regression",
        cuts=["a", "a"],
        branches=["s", "c"],
        kinds=["slvit", "conv"],
        seeds=[0, 0],
        params=[1, 1],
        branch_flops=[1, 2],
        cut_names=["a"],
        stage_flops=[10, 10],
    )
    assert verdict(compare(trials)) == (
        "SL-ViT (s) minus CNN (c) at a: -2.0000 MAE [-2.0000 to -2.0000], 1 seed: SL-ViT is "
        "better (the interval excludes 0).",
    )


def test_impractical_exits_are_named(make_trials: Make, trials: TrialOutputs) -> None:
    assert not any("impractical" in text for text in sentences(make_trials, 0.6, 0.5))
    flat = replace(trials, outputs=trials.outputs[[0] * 12], final=trials.outputs[0])
    found = [text for text in verdict(compare(flat)) if "impractical" in text]
    assert found == [
        "SL-ViT (slvit) at second is impractical: a cheaper exit is at least as good.",
        "CNN (conv) at second is impractical: a cheaper exit is at least as good.",
        "The final layer is impractical: a cheaper exit is at least as good.",
    ]


def test_each_rival_gets_one_sentence(trials: TrialOutputs) -> None:
    def rival(name: str, flops: int) -> Rival:
        return Rival.measured(name, trials.final, trials.labels, flops=flops, resolution=9)

    text = verdict(compare(trials, [rival("large", 33_000), rival("cheap", 10_000)]))[-2:]
    assert text[0].startswith(
        "The most expensive exits that cost no more than the static rival large "
        "(33,000 FLOPs), compared with it: SL-ViT at second -10.00 points ["
    )
    assert "; CNN at first -35.00 points [" in text[0]
    assert text[0].endswith("the exit is worse (the interval excludes 0).")
    assert text[1] == "No exit is as cheap as the static rival cheap (10,000 FLOPs)."


def test_a_rival_without_values_per_sample_is_inconclusive(trials: TrialOutputs) -> None:
    found = verdict(compare(trials, [Rival("bare", 0.1, 13_000, 9)]))[-1]
    assert found.endswith("SL-ViT at first +55.00 points, no interval, so inconclusive.")
