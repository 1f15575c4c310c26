"""When to leave: thresholds that keep a promise, under deadlines, watched for drift; no torch.

python examples/03_promises.py [runs/demo]
"""

import sys
from pathlib import Path

import numpy as np

import offramp as orp
from offramp.drift import watch
from offramp.evaluation.quality import quality
from offramp.outputs import ExitOutputs
from offramp.simulation import Lognormal, Poisson, simulate


def made_up(samples: int, seed: int) -> ExitOutputs:
    """Answers of three exits and a final layer, each surer and better than the one before."""
    rng = np.random.default_rng(seed)
    labels, ease = rng.integers(0, 10, samples), rng.normal(size=samples)
    outputs = rng.normal(size=(4, samples, 10)).astype(np.float32)
    for exit, skill in enumerate((2.5, 3.5, 4.5, 5.5)):
        outputs[exit, np.arange(samples), labels] += np.maximum(skill + 1.5 * ease, 0)
    return ExitOutputs(
        outputs=outputs,
        labels=labels,
        stage_flops=np.array([20e6, 20e6, 40e6, 100e6], np.int64),
        branch_flops=np.array([1e6, 1e6, 1e6, 0], np.int64),
        stage_ms=np.array([2.0, 2.0, 4.0, 10.0]),
        branch_ms=np.array([0.2, 0.2, 0.2, 0.0]),
    )


if len(sys.argv) > 1:  # a run folder: what its exits answered
    folder = Path(sys.argv[1]) / "outputs"
    calibration = ExitOutputs.load(folder / "calibration.npz")
    test = ExitOutputs.load(folder / "test.npz")
else:
    calibration, test = made_up(8000, seed=0), made_up(20_000, seed=1)

menu = orp.calibrate(calibration, max_drop=(0.01, 0.02, 0.05))
print(menu)
policies = {f"{limit:.0%}": policy for limit, policy in zip(menu.limits, menu, strict=True)}

print(quality(test, policies))

print(
    simulate(
        test,
        policies,
        arrivals=Poisson(per_second=40),
        deadline_ms=60,
        uplink=Lognormal(median_ms=10, sigma=0.5),
    )
)

policy = menu.at(0.02)
watched = watch(calibration, policy, rate=0.01)
alarms = watched.update(policy.choose(test))
print(alarms[0] if alarms else f"no drift in {watched.answers} answers")
