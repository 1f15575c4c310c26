"""Backbones of torchvision and timm as rows of the zoo's table."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torchvision
from timm.data.config import resolve_data_config
from torch import Tensor, nn

from offramp.backbones.entry import Backbone, BuildRequest
from offramp.preprocess import ImagePreprocess

_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
"""Auxiliary heads for training, by torchvision's name of the model."""


def _of_resnet152(library: str, state: Mapping[str, Tensor]) -> str | None:
    """The paper's ResNet152 has the same names and biases besides, and strides elsewhere."""
    if "layer1.0.conv1.bias" in state:
        return (
            "holds weights of paper:resnet152, which strides in the 1x1 convolutions as Keras's "
            f"does and has biases. In {library}:resnet152, which strides in the 3x3 convolutions "
            "(v1.5), they would give other answers. Use paper:resnet152."
        )
    return None


def _of_inceptionv3(library: str, state: Mapping[str, Tensor]) -> str | None:
    """The paper's InceptionV3 has the same names, without scales in its batch norms."""
    if "Conv2d_1a_3x3.bn.bias" in state and "Conv2d_1a_3x3.bn.weight" not in state:
        return (
            "holds weights of paper:inceptionv3, whose batch norms have no scale and whose mean "
            "pooling leaves out cells outside the map, as Keras's do. In "
            f"{library}:inception_v3 they would give other answers. Use paper:inceptionv3."
        )
    return None


_MISTAKEN = {"resnet152": _of_resnet152, "inception_v3": _of_inceptionv3}
"""For models that share their names of weights with one of the paper's: its weights are refused."""


def _refuses(library: str, model: str, state: Mapping[str, Tensor]) -> str | None:
    mistaken = _MISTAKEN.get(model.partition(".")[0])
    return None if mistaken is None else mistaken(library, state)


@dataclass(frozen=True)
class Library:
    """A library of backbones.

    Attributes:
        names: Function that lists its names.
        knows: Function that tells whether it can build a name; with timm's tags these are more.
        backbone: Function that returns the row of a known name.
    """

    names: Callable[[], list[str]]
    knows: Callable[[str], bool]
    backbone: Callable[[str], Backbone]


def _torchvision_names() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))


def _torchvision(model: str) -> Backbone:
    sets = torchvision.models.get_model_weights(model)
    best = getattr(sets, "DEFAULT", None)
    return Backbone(
        f"torchvision:{model}",
        partial(_make_torchvision, model),
        pretrained=best is not None,
        inputs=() if best is None else (_torchvision_preprocess(best.transforms()),),
        unused=tuple(f"{head}." for head in _AUXILIARY.get(model, ())),
        settled=partial(_settled, model),
        refuses=partial(_refuses, "torchvision", model),
    )


def _settled(model: str, request: BuildRequest) -> dict[str, bool]:
    """The pretrained sets of networks with auxiliary heads expect a scaled input."""
    return {"transform_input": request.weights is not None} if model in _AUXILIARY else {}


def _make_torchvision(model: str, request: BuildRequest) -> nn.Module:
    """Build one of torchvision's models, without auxiliary heads.

    The pretrained sets of those that have such heads expect `transform_input=True`, and cannot be
    downloaded into a model without them.
    """
    heads = _AUXILIARY.get(model, ())
    settings: dict[str, Any] = {}
    if heads and not request.download:
        settings = {"aux_logits": False, "init_weights": True, **_settled(model, request)}
    weights = "DEFAULT" if request.download else None
    made: nn.Module = torchvision.models.get_model(
        model, weights=weights, **settings | dict(request.options)
    )
    for head in heads:
        setattr(made, head, None)
        made.aux_logits = False  # type: ignore[assignment]  # a flag, which nn.Module cannot type
    if request.num_outputs is not None:
        _replace_classifier(made, request.num_outputs)
    return made


def _torchvision_preprocess(preset: Any) -> ImagePreprocess:
    [side], [shorter] = preset.crop_size, preset.resize_size
    return ImagePreprocess(
        height=side,
        width=side,
        resize_to=shorter,
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _replace_classifier(model: nn.Module, num_outputs: int) -> None:
    """Replace the last dense or convolutional layer, with which all these models end."""
    layers = [
        (path, layer)
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    path, last = layers[-1]
    new: nn.Module
    if isinstance(last, nn.Linear):
        new = nn.Linear(last.in_features, num_outputs)
    else:
        new = nn.Conv2d(last.in_channels, num_outputs, last.kernel_size)  # type: ignore[arg-type]
    model.set_submodule(path, new)


def _timm(model: str) -> Backbone:
    return Backbone(
        f"timm:{model}",
        partial(_make_timm, model),
        pretrained=timm.models.is_model_pretrained(model),
        inputs=_timm_inputs(model),
        refuses=partial(_refuses, "timm", model),
    )


def _make_timm(model: str, request: BuildRequest) -> nn.Module:
    settings = dict(request.options)
    if request.num_outputs is not None:
        settings["num_classes"] = request.num_outputs
    made: nn.Module = timm.create_model(model, pretrained=request.download, **settings)
    return made


def _timm_inputs(model: str) -> tuple[ImagePreprocess, ...]:
    """Preprocessing of the weights' evaluation; empty if ImagePreprocess cannot express it."""
    config = timm.models.get_pretrained_cfg(model)
    if config is None:
        return ()
    found = resolve_data_config(pretrained_cfg=config.to_dict())  # type: ignore[no-untyped-call]
    channels, height, width = found["input_size"]
    share, stretches = found["crop_pct"], found["crop_mode"] == "squash"
    if (
        channels not in (1, 3)
        or found["interpolation"] not in ("nearest", "bilinear", "bicubic")
        or share > 1
        or found["crop_mode"] not in ("center", "squash")
    ):
        return ()
    scaled = math.floor(height / share), math.floor(width / share)
    square = height == width
    return (
        ImagePreprocess(
            height=height,
            width=width,
            channels=channels,
            resize_to=scaled if stretches else scaled[0] if square else None,
            crop=None if stretches or square else share,
            interpolation=found["interpolation"],
            mean=found["mean"],
            std=found["std"],
        ),
    )


def _is_timm(model: str) -> bool:
    plain, _, tag = model.partition(".")
    return timm.is_model(plain) and (
        not tag or model in timm.list_models(f"{plain}.*", include_tags=True)
    )


LIBRARIES = {
    "torchvision": Library(
        _torchvision_names, lambda model: model in _torchvision_names(), _torchvision
    ),
    "timm": Library(lambda: list(timm.list_models()), _is_timm, _timm),
}
