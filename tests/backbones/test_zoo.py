from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.backbones.zoo import architecture, build, check_name, describe
from offramp.branches import ConvBranch
from offramp.errors import BundleError, PlanError
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Epoch, ModelInfo, Trial
from offramp.preprocess import ImagePreprocess

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


@pytest.mark.slow
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
        ({"name": "python"}, r"nothing says which function returns it\. Give --backbone"),
        ({"name": NAME, "backbone_file": "x.py:f"}, r"--backbone x\.py:f gives .* and so does"),
        ({"name": "python", "backbone_file": "x.py:f", "num_outputs": 3}, "brings its own weights"),
        ({"name": "offramp:demo", "num_outputs": 3}, "its own weights and 10 outputs"),
        (
            {"name": "paper:resnet152", "weights": "pretrained"},
            r"no pretrained weights .* Get Keras's resnet152_weights_tf",
        ),
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_a_pretrained_backbone_with_auxiliary_heads_is_built_saved_and_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torchvision.models.get_model(name, weights=None, aux_logits=True, init_weights=False)
    monkeypatch.setattr(
        torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: whole.state_dict()
    )
    module = build(f"torchvision:{name}", weights="pretrained")
    assert module.transform_input
    image = torch.rand(1, 3, 75, 75)
    whole.transform_input = True
    whole.eval()
    torch.testing.assert_close(module(image), whole(image), rtol=0, atol=0)

    place = {"inception_v3": "Mixed_5b", "googlenet": "inception3a"}[name]
    model = save_with_branch(module, place, image, f"torchvision:{name}", "pretrained", tmp_path)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", no_download)
    loaded = MultiExit.load(tmp_path)
    assert loaded.backbone.weights_digest() == model.backbone.weights_digest()
    assert torch.equal(loaded(image), model(image))


def no_download(*_: object, **__: object) -> None:
    raise AssertionError("loading a saved model must not download anything")


def save_with_branch(
    module: nn.Module, place: str, image: Tensor, name: str, weights: str, folder: Path
) -> MultiExit:
    backbone = cut(module, [place], image)
    spec = ConvBranch(filters=2)
    branch = spec.build(backbone.tap_shapes[place], backbone.num_outputs).eval()
    chosen = {place: Trial(place, spec, 0, branch, (Epoch(1, 1.0, 1.0, 0.5, 1e-3),), 0, 1.0, 0.5)}
    info = ModelInfo(backbone={"name": name, "num_outputs": None, "weights": weights})
    model = MultiExit(backbone, chosen, info=info)
    model.save(folder)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_a_weights_file_gets_the_input_transform_that_pretrained_sets_need(
    name: str, tmp_path: Path
) -> None:
    whole = torchvision.models.get_model(name, weights=None, aux_logits=True, init_weights=False)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    for transform in (True, False):
        whole.transform_input = transform
        whole.eval()
        options = {} if transform else {"transform_input": False}
        module = build(f"torchvision:{name}", weights=tmp_path / "w.pth", options=options)
        image = torch.rand(1, 3, 75, 75)
        torch.testing.assert_close(module(image), whole(image), rtol=0, atol=0)


def test_options_reach_the_library_and_wrong_ones_are_named() -> None:
    assert build(NAME, options={"in_chans": 1})(torch.zeros(1, 1, 64, 64)).shape == (1, 1000)
    with pytest.raises(PlanError, match=r"cannot be built with options .*in_channels"):
        build(NAME, options={"in_channels": 1})


@pytest.mark.parametrize("error", [URLError("no route"), FileNotFoundError("offline")])
def test_a_failed_download_says_what_to_do(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(BundleError, match=r"resnet18 cannot be downloaded .*give the file"):
        build("torchvision:resnet18", weights="pretrained")


def test_a_timm_name_with_an_unknown_tag_is_refused() -> None:
    check_name("timm:resnet50.a1_in1k")
    with pytest.raises(PlanError, match=r"no backbone 'timm:resnet50\.a9_in1k'"):
        check_name("timm:resnet50.a9_in1k")


def picture_of(name: str) -> ImagePreprocess:
    """What a backbone's weights expect of its one input."""
    (wanted,) = describe(name).inputs
    assert isinstance(wanted, ImagePreprocess)
    return wanted


def test_a_row_says_what_the_weights_want_as_input() -> None:
    wanted = picture_of("torchvision:efficientnet_b1")
    assert (wanted.height, wanted.width, wanted.interpolation) == (240, 240, "bilinear")
    assert wanted.resize_to == 255
    wanted = picture_of("timm:tf_efficientnet_lite0")
    assert (wanted.height, wanted.interpolation, wanted.mean) == (224, "bicubic", (0.5, 0.5, 0.5))
    wanted = picture_of("offramp:demo")
    assert (wanted.height, wanted.channels) == (112, 3)


@pytest.mark.parametrize("size", [(300, 401), (240, 200)])
def test_pictures_are_prepared_for_the_weights_as_their_libraries_do(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    picture = Image.fromarray(pixels)
    ours = picture_of("torchvision:efficientnet_b1")
    theirs = torchvision.models.EfficientNet_B1_Weights.DEFAULT.transforms()
    np.testing.assert_array_equal(ours(picture), theirs(picture))
    for name in ("resnet50.a1_in1k", "vit_base_patch16_clip_224.openai"):
        ours = picture_of(f"timm:{name}")
        known: Any = get_pretrained_cfg(name)
        config = resolve_data_config(pretrained_cfg=known.to_dict())  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(ours(picture), create_transform(**config)(picture))


def test_the_paper_s_named_cuts_are_where_its_figures_say() -> None:
    named = describe("paper:resnet152").cuts
    backbone = cut(architecture("paper:resnet152"), list(named.values()), torch.zeros(1, 3, 64, 64))
    assert backbone.cuts == ("paper:1", "paper:2")
    assert [str(backbone.tap_shapes[name][0]) for name in backbone.cuts] == ["128x8x8", "512x8x8"]
