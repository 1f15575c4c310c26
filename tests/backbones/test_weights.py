import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from offramp.backbones.zoo import build
from offramp.errors import BundleError, OfframpWarning

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


def write_script(path: Path) -> None:
    script = torch.jit.trace(torch.nn.ReLU(), torch.zeros(1))  # type: ignore[no-untyped-call]
    torch.jit.save(script, path)


def write_checkpoint(path: Path) -> None:
    torch.save({"epoch": 3, "optimiser": build(NAME).state_dict()}, path)


@pytest.mark.parametrize(
    ("write", "name", "expected"),
    [
        (write_truncated, "w.pth", "cannot be read"),
        (write_truncated_safetensors, "w.safetensors", "cannot be read"),
        (write_unsafe, "w.pth", r"Python objects besides tensors \(.*Unsafe\).*not opened.*once"),
        pytest.param(
            *(write_script, "w.pth", "TorchScript program.*torch.jit.load"),
            marks=pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning"),
        ),
        (lambda path: path.write_bytes(b"weights"), "w.pth", "damaged or not a file of tensors"),
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
        "averaged": {"epoch": 3, "state_dict_ema": state},
        "lightning": {
            "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
            "callbacks": {},
        },
        "net": {f"net.module.{name}": tensor for name, tensor in state.items()},
        "part": {name.replace("fc.", "fc._orig_mod."): tensor for name, tensor in state.items()},
    }
    for name, content in wrapped.items():
        torch.save(content, tmp_path / f"{name}.pth")
        loaded = build(NAME, weights=tmp_path / f"{name}.pth").state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_only_weights_outside_a_prefixed_network_are_named(tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in build(NAME).state_dict().items()}
    del state["model.fc.bias"]
    torch.save({"state_dict": state | {"criterion.weight": torch.ones(2)}}, tmp_path / "w.pth")
    with pytest.raises(BundleError) as caught:
        build(NAME, weights=tmp_path / "w.pth")
    assert "1 missing: fc.bias; 1 unexpected: criterion.weight. Use the" in str(caught.value)


def test_advice_about_a_last_layer_of_another_size_works_when_followed(tmp_path: Path) -> None:
    torch.save(build(NAME, num_outputs=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(BundleError, match="set num_outputs=3, as in the network"):
        build(NAME, weights=tmp_path / "w.pth")
    build(NAME, weights=tmp_path / "w.pth", num_outputs=3)


def test_advice_about_a_checkpoint_with_objects_works_when_followed(tmp_path: Path) -> None:
    state = build(NAME, seed=1).state_dict()
    torch.save({"state_dict": state, "args": Namespace(lr=0.1)}, tmp_path / "w.pth")
    with pytest.raises(BundleError, match=r"argparse.Namespace.*weights_only=False"):
        build(NAME, weights=tmp_path / "w.pth")
    saved = torch.load(tmp_path / "w.pth", weights_only=False)
    torch.save(saved["state_dict"], tmp_path / "new.pth")
    loaded = build(NAME, weights=tmp_path / "new.pth").state_dict()
    assert torch.equal(loaded["fc.bias"], state["fc.bias"])


def test_weights_are_taken_before_their_moving_average_with_a_warning(tmp_path: Path) -> None:
    state, average = build(NAME, seed=1).state_dict(), build(NAME, seed=2).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": average}, tmp_path / "w.pth")
    with pytest.warns(OfframpWarning, match="state_dict was used"):
        loaded = build(NAME, weights=tmp_path / "w.pth").state_dict()
    assert torch.equal(loaded["fc.bias"], state["fc.bias"])


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
