"""A unit of training holds all that decides its result, so that any process can run it."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from offramp.backbones.staged import StagedBackbone
from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.features import FeatureCache
from offramp.multiexit.trial import Trial
from offramp.progress import silent
from offramp.training.learner import TrialName
from offramp.training.lockstep import SharedProgress
from offramp.training.settings import TrainSettings
from offramp.training.supply import StoredSupply
from offramp.training.units import Recipe, Resources, StoredTaps, TrainTrials, TrialFiles

Images = tuple[Tensor, Tensor]
SPECS: Sequence[BranchSpec] = [
    ConvBranch(filters=3, hidden=9, standardise=True),
    SLViT(patch=2, dim=6, heads=2, hidden=9),
]
ELSEWHERE = """
import pickle, sys
from pathlib import Path
units, caches, report = pickle.loads(Path(sys.argv[1]).read_bytes())
from offramp.training.units import Resources
from offramp.training.lockstep import SharedProgress
from offramp.progress import silent
for unit in units:
    unit.run(Resources(caches, SharedProgress(silent, 2, 99)))
"""


def cached(
    backbone: StagedBackbone, images: Images, validation: Images, root: Path
) -> list[FeatureCache]:
    stored = FeatureCache.of(backbone, images, root, cuts=["4"])
    return [stored, FeatureCache.of(backbone, validation, root, cuts=["4"], scales_of=stored)]


def unit(
    backbone: StagedBackbone,
    caches: Sequence[FeatureCache],
    targets: Sequence[Tensor],
    specs: Sequence[BranchSpec],
    root: Path,
) -> TrainTrials:
    settings = TrainSettings(epochs=3, batch_size=11, lr=3e-3)
    train, validation = (
        StoredTaps(cache.folder, labels.numpy())
        for cache, labels in zip(caches, targets, strict=True)
    )
    files = tuple(TrialFiles(TrialName("4", spec, 5), root / spec.label(), None) for spec in specs)
    recipe = Recipe(settings, "classification", 4, "cpu")
    return TrainTrials(recipe, "4", backbone.features("4"), train, validation, files)


@pytest.mark.slow
def test_branches_train_alone_together_and_in_another_process_to_the_same_bits(
    backbone: StagedBackbone, train: Images, validation: Images, tmp_path: Path
) -> None:
    caches = cached(backbone, train, validation, tmp_path / "cache")
    by_folder = {cache.folder: cache for cache in caches}
    targets = [train[1], validation[1]]
    resources = Resources(by_folder, SharedProgress(silent, 2, 3 * 41))

    together = unit(backbone, caches, targets, SPECS, tmp_path / "together").run(resources)
    apart = [unit(backbone, caches, targets, [spec], tmp_path / "apart") for spec in SPECS]
    alone = [result for each in apart for result in each.run(resources)]

    there = [unit(backbone, caches, targets, [spec], tmp_path / "there") for spec in SPECS]
    parcel = tmp_path / "parcel"
    parcel.write_bytes(pickle.dumps((there, by_folder, None)))
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(parcel)], check=True)
    elsewhere = [result for each in there for result in each.run(resources)]

    for results in zip(together, alone, elsewhere, strict=True):
        first, *others = [result for result in results if isinstance(result, Trial)]
        assert len(others) == 2
        for other in others:
            assert other.history == first.history
            for name, value in first.branch.state_dict().items():
                assert torch.equal(other.branch.state_dict()[name], value)
    files = {path.name: path.read_bytes() for path in (tmp_path / "apart").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}


def test_taps_and_targets_are_given_on_the_device(
    backbone: StagedBackbone, train: Images, validation: Images, tmp_path: Path
) -> None:
    stored, _ = cached(backbone, train, validation, tmp_path)
    supply = StoredSupply(stored, ("4",), train[1], torch.device("meta"))
    taps, targets = supply.read(np.array([3, 40, 7]), epoch=1)
    assert {tensor.device.type for tensor in (*taps["4"], targets)} == {"meta"}
