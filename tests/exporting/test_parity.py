"""Graphs that differ from the model are refused, and so is a folder that holds something else."""

import copy
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from offramp.backbones.stage import Stage
from offramp.backbones.staged import cut
from offramp.branches import ConvBranch
from offramp.errors import BundleError, ExportError, ShapeError
from offramp.exporting import export
from offramp.exporting.making import Inputs, made_bundle
from offramp.exporting.parity import agree, compared
from offramp.exporting.pieces import Piece, pieces_of
from offramp.multiexit.facts import facts_of
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.policy import ExitPolicy, find_score
from offramp.progress import silent
from offramp.runtime.engines import open_engine
from offramp.runtime.parts import Parts
from offramp.runtime.runtime import Runtime


@pytest.fixture(scope="module")
def model() -> MultiExit:
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    backbone = cut(network.eval(), ["1"], torch.zeros(1, 3, 9, 7))
    spec = ConvBranch(filters=2, hidden=3, pool=1)
    trial = Trial("1", spec, 0, spec.build(backbone.features("1"), 4).eval(), (), 1, 1.0, 1.0)
    return MultiExit(backbone, {"1": trial}, [trial])


@pytest.fixture(scope="module")
def inputs(model: MultiExit) -> Inputs:
    return Inputs.of(facts_of(model), None)


@pytest.fixture(scope="module")
def parts(model: MultiExit, inputs: Inputs) -> Parts:
    bundle = made_bundle(model, inputs, ["onnxruntime"], silent, time.perf_counter)
    [parity] = bundle.manifest.parity
    assert (parity.inputs, parity.samples, parity.folded) == ("random", 32, True)
    assert parity.difference < 1e-4
    return Parts(bundle, open_engine("onnxruntime"))


def fresh(model: MultiExit) -> list[Piece]:
    return pieces_of(model, [each for each in model.backbone.stages if isinstance(each, Stage)])


@pytest.mark.parametrize("file", ["stages/0.onnx", "stages/1.onnx", "branches/0.onnx"])
def test_a_graph_that_differs_from_the_model_is_refused_by_name(
    model: MultiExit, inputs: Inputs, parts: Parts, file: str
) -> None:
    facts, pieces = facts_of(model), fresh(model)
    compared(facts, pieces, inputs.arrays, parts)
    [piece] = [each for each in pieces if each.graph.file == file]
    with torch.no_grad():
        next(piece.module.parameters()).mul_(1.05)
    with pytest.raises(
        ExportError, match=f"^in {file} with a batch of [13], .* no bundle was written"
    ):
        compared(facts, pieces, inputs.arrays, parts)


def test_modules_agree_with_themselves_and_not_with_others(
    model: MultiExit, inputs: Inputs
) -> None:
    facts, one, other = facts_of(model), fresh(model), fresh(model)
    assert agree(facts, one, other, inputs.arrays)
    with torch.no_grad():
        next(other[0].module.parameters()).mul_(1.01)
    assert not agree(facts, one, other, inputs.arrays)


def test_a_folder_with_other_files_is_refused_before_the_work(
    model: MultiExit, tmp_path: Path
) -> None:
    (tmp_path / "stages").write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match="contains stages, which would be overwritten"):
        export(model, to=tmp_path, engines=["none of ours"])
    model.save(tmp_path / "model")
    with pytest.raises(BundleError, match=r"contains manifest\.json"):
        export(model, to=tmp_path / "model", engines=["none of ours"])


def test_a_policy_for_other_exits_is_refused_before_the_work(
    model: MultiExit, tmp_path: Path
) -> None:
    policy = ExitPolicy(score=find_score("margin"), names=("a", "final"), thresholds=(0.5,))
    with pytest.raises(ShapeError, match=r"for exits \['a', 'final'\]"):
        export(model, policy, to=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_becomes_graphs_in_fp32_and_stays_as_it_was(
    model: MultiExit, tmp_path: Path, dtype: torch.dtype
) -> None:
    other = copy.deepcopy(model).to(dtype)
    before = [weight.clone() for weight in other.parameters()]
    bundle = export(other, to=tmp_path / "bundle")
    assert [each.dtype for each in bundle.manifest.facts.inputs] == ["float32"]
    assert all(torch.equal(one, two) for one, two in zip(before, other.parameters(), strict=True))
    inputs = Inputs.of(bundle.manifest.facts, None).arrays[0][:2]
    with Runtime(bundle) as runtime, torch.no_grad():
        found = [answer.outputs for answer in runtime.run_batch(list(inputs))]
        wanted = other(torch.from_numpy(inputs).to(dtype))[-1].float().numpy()
    np.testing.assert_allclose(found, wanted, atol=0.02 if dtype == torch.bfloat16 else 1e-5)
