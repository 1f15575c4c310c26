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
    told = str(caught.value)
    assert "1 missing: conv1.0.weight" in told
    assert "1 unexpected: conv9.weight" in told
    assert "1 of another shape: fc.bias (file 3, model 1000)" in told


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
    torch.save({"epoch": 3, "model": build(NAME).state_dict()}, path)


@pytest.mark.parametrize(
    ("write", "name", "expected"),
    [
        (write_truncated, "w.pth", "cannot be read"),
        (write_truncated_safetensors, "w.safetensors", "cannot be read"),
        (write_unsafe, "w.pth", "holds more than tensors"),
        (write_checkpoint, "w.pth", "a dictionary of epoch, model"),
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
