from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from offramp.backbones.staged import StagedBackbone, cut
from offramp.branches import ConvBranch
from offramp.errors import ArgumentError, PlanError
from offramp.training import fit_branches

DATA = np.zeros((2, 3, 6, 4), np.float32), np.zeros(2, np.int64)


@pytest.fixture
def backbone() -> StagedBackbone:
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(40, 2))
    return cut(net, ["0"], torch.zeros(1, 3, 6, 4))


def test_a_number_of_seeds_is_not_a_list_of_seeds(backbone: StagedBackbone) -> None:
    seeds: Any = 3
    with pytest.raises(PlanError, match=r"Write seeds=range\(3\)"):
        fit_branches(backbone, {"0": [ConvBranch(filters=2)]}, DATA, DATA, seeds=seeds)


def test_a_single_spec_is_not_a_list_of_branches(backbone: StagedBackbone) -> None:
    branches: Any = {"0": ConvBranch(filters=2)}
    with pytest.raises(PlanError, match=r"Write \{'0': \[spec\]\}"):
        fit_branches(backbone, branches, DATA, DATA, seeds=[0])


def test_a_network_that_is_not_cut_says_how_to_cut_it(backbone: StagedBackbone) -> None:
    net: Any = backbone.original
    with pytest.raises(ArgumentError, match=r"backbone is a Sequential\..*cut\(model"):
        fit_branches(net, {"0": [ConvBranch(filters=2)]}, DATA, DATA, seeds=[0])


def test_a_misspelt_task_names_those_there_are(backbone: StagedBackbone) -> None:
    task: Any = "clasification"
    with pytest.raises(PlanError, match="not one of classification, regression"):
        fit_branches(backbone, {"0": [ConvBranch(filters=2)]}, DATA, DATA, seeds=[0], task=task)


def test_branches_that_are_a_list_say_how_to_write_them(backbone: StagedBackbone) -> None:
    branches: Any = [ConvBranch(filters=2)]
    with pytest.raises(PlanError, match="branches are a list, not a mapping"):
        fit_branches(backbone, branches, DATA, DATA, seeds=[0])


def test_an_empty_path_is_not_the_current_folder(
    backbone: StagedBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pool = ConvBranch(layers=0, pool="global")
    with pytest.raises(ArgumentError, match="out is empty"):
        fit_branches(backbone, {"0": [pool]}, DATA, DATA, seeds=[0], out="")
    assert list(tmp_path.iterdir()) == []
