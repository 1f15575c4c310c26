"""A run folder with the outputs of two splits and nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offramp.outputs import ExitOutputs
from offramp.storage.folder import changing
from offramp.storage.manifest import RUN


def _made_up(seed: int) -> ExitOutputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 700)
    outputs = rng.normal(size=(2, 700, 4))
    outputs[:, np.arange(700), labels] += np.array([[1.5], [4.0]])
    return ExitOutputs(
        outputs=outputs.astype(np.float32),
        labels=labels,
        stage_flops=np.array([20, 80]),
        branch_flops=np.array([2, 0]),
        stage_ms=np.array([1.0, 4.0]),
        branch_ms=np.array([0.1, 0.0]),
    )


@pytest.fixture
def made_up() -> Callable[[int], ExitOutputs]:
    """Outputs of two exits on 700 samples, from a seed."""
    return _made_up


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    with changing(folder, RUN, {"class_names": ["cat", "dog", "owl", "eel"]}) as staged:
        for seed, split in enumerate(("calibration", "test")):
            _made_up(seed).save(staged / "outputs" / f"{split}.npz")
    return folder
