from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from offramp.backbones.zoo import build
from offramp.errors import PlanError

NAME = "timm:test_resnet"  # 0.5 M parameters, made by timm for tests


def equal_states(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_random_weights_follow_the_seed_and_leave_the_global_stream_alone() -> None:
    state = torch.random.get_rng_state()
    first, same, other = build(NAME), build(NAME), build(NAME, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert equal_states(first, same)
    assert not equal_states(first, other)
    assert not first.training


@pytest.mark.parametrize("name", [NAME, "torchvision:squeezenet1_1", "torchvision:mobilenet_v2"])
def test_the_number_of_outputs_can_be_chosen(name: str) -> None:
    assert build(name, num_outputs=7)(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_backbones_with_auxiliary_answers_come_without_them(name: str) -> None:
    assert not any(
        "aux" in part.lower() for part, _ in build(f"torchvision:{name}").named_children()
    )


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_come_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    saved = build(NAME, seed=1)
    path = tmp_path / f"weights.{suffix}"
    state = saved.state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    assert equal_states(build(NAME, weights=path), saved)


def test_half_precision_weights_become_single_precision(tmp_path: Path) -> None:
    half = {
        k: v.half() if v.is_floating_point() else v for k, v in build(NAME).state_dict().items()
    }
    save_file(half, tmp_path / "half.safetensors")
    loaded = build(NAME, weights=tmp_path / "half.safetensors")
    assert all(weight.dtype == torch.float32 for weight in loaded.parameters())


def test_an_unknown_backbone_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        PlanError, match=r"no backbone 'torchvision:resnet81'.*torchvision:resnet18"
    ):
        build("torchvision:resnet81")
    with pytest.raises(PlanError, match="Nearest: torchvision:vgg16, timm:vgg16"):
        build("vgg16")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "python"}, "go together"),
        ({"name": NAME, "backbone_file": "x.py:f"}, "go together"),
        ({"name": "python", "backbone_file": "x.py:f", "num_outputs": 3}, "brings its own weights"),
        ({"name": "offramp:demo", "num_outputs": 3}, "its own weights and 10 outputs"),
        ({"name": "paper:resnet152", "weights": "pretrained"}, "no set of its own"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, object], expected: str
) -> None:
    with pytest.raises(PlanError, match=expected):
        build(**settings)  # type: ignore[arg-type]


@pytest.mark.network
def test_the_library_s_own_weights_can_be_had() -> None:
    assert not equal_states(build("timm:test_resnet", weights="pretrained"), build(NAME))
