import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from offramp.backbones.zoo import build
from offramp.errors import BundleError

NAME = "timm:test_resnet"


def test_a_file_for_another_model_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    state = build(NAME).state_dict()
    state["conv9.weight"] = state.pop("conv1.0.weight")
    state["fc.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(BundleError) as caught:
        build(NAME, weights=tmp_path / "other.safetensors")
    message = str(caught.value)
    assert "1 missing: conv1.0.weight" in message
    assert "1 unexpected: conv9.weight" in message
    assert "1 of another shape: fc.bias (file 3, model 1000)" in message


class Unsafe:
    """What a pickle could smuggle in."""


def write_truncated(path: Path) -> None:
    torch.save(build(NAME).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def write_truncated_safetensors(path: Path) -> None:
    save_file(build(NAME).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def write_unsafe(path: Path) -> None:
    torch.save({"weight": Unsafe()}, path)


def write_checkpoint(path: Path) -> None:
    torch.save({"epoch": 3, "optimiser": build(NAME).state_dict()}, path)


@pytest.mark.parametrize(
    ("write", "name", "expected"),
    [
        (write_truncated, "w.pth", "cannot be read"),
        (write_truncated_safetensors, "w.safetensors", "cannot be read"),
        (write_unsafe, "w.pth", "holds more than tensors"),
        (write_checkpoint, "w.pth", "a dictionary of epoch, optimiser"),
        (lambda path: torch.save([1], path), "w.pth", "holds a list"),
        (lambda path: None, "w.pth", "no weights file"),
    ],
)
def test_a_damaged_or_strange_weights_file_is_named(
    tmp_path: Path, write: Callable[[Path], object], name: str, expected: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(BundleError, match=expected) as caught:
        build(NAME, weights=tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_names_and_wrappers_of_training_scripts_are_understood(tmp_path: Path) -> None:
    saved = build(NAME, seed=1)
    state = saved.state_dict()
    wrapped = {
        "plain": {"epoch": 3, "state_dict": state},
        "parallel": {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        "compiled": {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        "both": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        "part": {name.replace("fc.", "fc._orig_mod."): tensor for name, tensor in state.items()},
    }
    for name, content in wrapped.items():
        torch.save(content, tmp_path / f"{name}.pth")
        loaded = build(NAME, weights=tmp_path / f"{name}.pth").state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_mnasnet_loads_from_a_file_without_its_version(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    state = dict(build("torchvision:mnasnet0_5", seed=1).state_dict())
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    loaded = build("torchvision:mnasnet0_5", weights=path).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_the_names_in_torchvision_s_densenet_files_are_understood(tmp_path: Path) -> None:
    state = build("torchvision:densenet121", seed=1).state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor
        for name, tensor in state.items()
        if not name.endswith("_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")
    loaded = build("torchvision:densenet121", weights=tmp_path / "w.pth").state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
