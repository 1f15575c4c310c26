"""Backbones by name: torchvision's, timm's, the paper's, the shipped one, a user's own file."""

import difflib
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torchvision
from torch import nn

from offramp.backbones.keras_resnet import KerasResNet152
from offramp.backbones.python_file import call_function
from offramp.backbones.weights import load_weights, read_weights
from offramp.compute import seeded
from offramp.errors import PlanError

DEMO = "offramp:demo"
PAPER = "paper:resnet152"
PYTHON = "python"
PRETRAINED = "pretrained"

_DEMO_MODEL = "tf_efficientnet_lite0"
_DEMO_CLASSES = 10
_DEMO_WEIGHTS = "tf_efficientnet_lite0-fashion_mnist-112px.safetensors"
_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


def build(
    name: str,
    *,
    weights: str | Path | None = None,
    num_outputs: int | None = None,
    backbone_file: str | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build a backbone in evaluation mode.

    Args:
        name: `torchvision:NAME`, `timm:NAME`, `paper:resnet152`, `offramp:demo` (the shipped one,
            always with its weights), or `python` for `backbone_file`.
        weights: None for random weights, which touches no network; `pretrained` for the library's
            own set, which may download; or a `.safetensors` or state-dict file.
        num_outputs: Ends the backbone in that many outputs instead of its own classes; for the
            paper's, in the paper's top.
        backbone_file: `path/to/file.py:function`, for `python` only. It runs that code.
        seed: Of the random weights.

    Raises:
        PlanError: No such backbone, or settings that do not go together.
        BundleError: The weights file is missing, damaged or for another model.
    """
    _check(name, weights, num_outputs, backbone_file)
    pretrained = weights == PRETRAINED
    model = architecture(
        name, num_outputs=num_outputs, backbone_file=backbone_file, seed=seed, pretrained=pretrained
    )
    if name == DEMO:
        with as_file(files("offramp") / "data" / "backbone" / _DEMO_WEIGHTS) as path:
            load_weights(model, read_weights(path), str(path))
    elif weights is not None and not pretrained:
        unused = _AUXILIARY.get(name.partition(":")[2], ())
        load_weights(model, read_weights(Path(weights)), str(weights), unused)
    return model


def architecture(
    name: str,
    *,
    num_outputs: int | None = None,
    backbone_file: str | None = None,
    seed: int = 0,
    pretrained: bool = False,
) -> nn.Module:
    """A backbone in evaluation mode before any weights file; arguments as in `build`.

    Raises:
        PlanError: No such backbone.
    """
    check_name(name)
    library, _, model = name.partition(":")
    with seeded("backbone", name, seed):
        if name == PYTHON:
            made = call_function(backbone_file or "")
        elif name == DEMO:
            made = timm.create_model(_DEMO_MODEL, num_classes=_DEMO_CLASSES)
        elif name == PAPER:
            made = KerasResNet152(num_outputs)
        elif library == "torchvision":
            made = _torchvision(model, num_outputs, pretrained)
        else:
            classes: dict[str, Any] = {} if num_outputs is None else {"num_classes": num_outputs}
            made = timm.create_model(model, pretrained=pretrained, **classes)
    return made.eval()


def check_name(name: str) -> None:
    """Refuse a name that `build` does not know; nothing is built.

    Raises:
        PlanError: No such backbone, with the nearest names.
    """
    library, _, model = name.partition(":")
    known = {
        "torchvision": lambda: model in _torchvision_names(),
        "timm": lambda: timm.is_model(model.partition(".")[0]),
    }
    if name not in (DEMO, PAPER, PYTHON) and not (library in known and known[library]()):
        raise _unknown(name)


def _check(
    name: str, weights: str | Path | None, num_outputs: int | None, backbone_file: str | None
) -> None:
    if (name == PYTHON) != (backbone_file is not None):
        raise PlanError(
            f"backbone {name!r} with backbone_file={backbone_file!r}: the name `python` and a "
            "file (--backbone path/to/file.py:function) go together, one needs the other."
        )
    if name == PYTHON and (weights is not None or num_outputs is not None):
        raise PlanError(
            "A backbone from a Python file brings its own weights and outputs. Leave out weights "
            "and num_outputs, and set them in the function."
        )
    if name == DEMO and (weights is not None or num_outputs not in (None, _DEMO_CLASSES)):
        raise PlanError(
            f"{DEMO} has its own weights and {_DEMO_CLASSES} outputs. Leave out weights and "
            f"num_outputs, or take timm:{_DEMO_MODEL}."
        )
    if name == PAPER and weights == PRETRAINED:
        raise PlanError(f"{PAPER} has no set of its own to download. Give a weights file, or none.")


def _torchvision_names() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))


def _torchvision(name: str, num_outputs: int | None, pretrained: bool) -> nn.Module:
    settings: dict[str, Any] = {}
    if name in _AUXILIARY:
        settings["aux_logits"] = False
        if not pretrained:
            settings["init_weights"] = True  # torchvision warns where it is left open
    weights = "DEFAULT" if pretrained else None
    model: nn.Module = torchvision.models.get_model(name, weights=weights, **settings)
    if num_outputs is not None:
        _replace_classifier(model, num_outputs)
    return model


def _replace_classifier(model: nn.Module, num_outputs: int) -> None:
    """Put a new layer in place of the last dense or convolutional one, as all of these end."""
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


def _unknown(name: str) -> PlanError:
    known = [
        DEMO,
        PAPER,
        PYTHON,
        *(f"torchvision:{model}" for model in _torchvision_names()),
        *(f"timm:{model}" for model in timm.list_models()),
    ]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
    tail = name.rpartition(":")[2]
    exact = [model for model in known if model.rpartition(":")[2] == tail]
    found = list(dict.fromkeys([*exact, *near]))
    hint = f" Nearest: {', '.join(found)}." if found else ""
    return PlanError(
        f"There is no backbone {name!r}.{hint} Backbones are torchvision:NAME, timm:NAME, {PAPER}, "
        f"{DEMO}, and path/to/file.py:function given by --backbone."
    )
