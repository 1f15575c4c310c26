"""Keras's published ImageNet weights (`.h5`, the layout before Keras 3) for the paper's backbones.

Such a file holds a group for each layer, and in it the layer's arrays by name. Layers are found by
their names; those of InceptionV3 have only numbers, which follow the order of its code.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from offramp.errors import BundleError

_ENDINGS = (".h5", ".hdf5")
_KINDS = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_TOPS = ("predictions", "probs", "fc1000")
"""Names of the last layer, which files without a top lack."""
_NUMBERED = {"conv2d": nn.Conv2d, "batch_normalization": nn.BatchNorm2d}

Layers = Mapping[str, Mapping[str, Tensor]]
"""For each layer of a file that has weights, its tensors by torch's names."""


@dataclass(frozen=True)
class KerasLayout:
    """How the layers of Keras's file become modules of a backbone.

    Attributes:
        top: Path of the module that ends the backbone.
        place: The path of a layer's module, by the layer's name; None where layers are numbered.
        bgr: Path of the first convolution where Keras's weights read blue, green and red; it is
            turned around to read red, green and blue.
    """

    top: str
    place: Callable[[str], str | None] | None = None
    bgr: str | None = None

    def __call__(self, path: Path, model: nn.Module) -> dict[str, Tensor] | None:
        """A state dict for `model`, or None where the file is not one of Keras's.

        Where the model has the paper's top, it keeps that as it is.

        Raises:
            BundleError: The file cannot be read, or is for another architecture.
        """
        if path.suffix not in _ENDINGS:
            return None
        layers = read_keras(path)
        places = self._numbered(layers, model) if self.place is None else self._named(layers)
        own_top = not isinstance(model.get_submodule(self.top), nn.Linear)
        places |= dict.fromkeys(_TOPS, self.top)
        unknown = [name for name in layers if name not in places]
        if unknown:
            raise BundleError(
                f"{path} has layers that this {type(model).__name__} lacks: "
                f"{', '.join(unknown[:4])}. Name the file that Keras publishes for this network."
            )
        state = {
            f"{places[layer]}.{name}": tensor
            for layer, tensors in layers.items()
            if not (own_top and layer in _TOPS)
            for name, tensor in tensors.items()
        }
        if self.bgr is not None and f"{self.bgr}.weight" in state:
            state[f"{self.bgr}.weight"] = state[f"{self.bgr}.weight"].flip(1)
        kept = model.get_submodule(self.top).state_dict() if own_top else {}
        return state | {f"{self.top}.{name}": tensor for name, tensor in kept.items()}

    def _named(self, layers: Layers) -> dict[str, str]:
        place = self.place or (lambda name: None)
        found = {name: place(name) for name in layers}
        return {name: path for name, path in found.items() if path is not None}

    def _numbered(self, layers: Layers, model: nn.Module) -> dict[str, str]:
        """Layers of a kind by number, which is the order of the model's modules of this kind."""
        found: dict[str, str] = {}
        for prefix, kind in _NUMBERED.items():
            pattern = re.compile(rf"{prefix}(?:_(\d+))?")
            numbers = {
                name: int(match[1] or 0) for name in layers if (match := pattern.fullmatch(name))
            }
            given = sorted(numbers, key=numbers.__getitem__)
            found |= dict(zip(given, _paths(model, kind), strict=False))
        return found


def resnet152_place(layer: str) -> str | None:
    """`conv3_block1_2_bn` is `layer2.0.bn2`."""
    if layer in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn1"}[layer]
    match = re.fullmatch(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)", layer)
    if match is None:
        return None
    block = f"layer{int(match[1]) - 1}.{int(match[2]) - 1}"
    if match[3] == "0":
        return f"{block}.downsample.{('conv', 'bn').index(match[4])}"
    return f"{block}.{match[4]}{match[3]}"


def densenet201_place(layer: str) -> str | None:
    """`conv3_block1_2_conv` is `features.denseblock2.denselayer1.conv2`."""
    ends = {"conv1_conv": "conv0", "conv1_bn": "norm0", "bn": "norm5"}
    if layer in ends:
        return f"features.{ends[layer]}"
    if match := re.fullmatch(r"pool([2-4])_(conv|bn)", layer):
        part = {"conv": "conv", "bn": "norm"}[match[2]]
        return f"features.transition{int(match[1]) - 1}.{part}"
    if match := re.fullmatch(r"conv([2-5])_block(\d+)_(0_bn|1_conv|1_bn|2_conv)", layer):
        part = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}[match[3]]
        return f"features.denseblock{int(match[1]) - 1}.denselayer{match[2]}.{part}"
    return None


def read_keras(path: Path) -> Layers:
    """Every layer of a file that has weights, laid out as in torch.

    Raises:
        BundleError: The file is missing, damaged or in another layout, or h5py is not installed.
    """
    try:
        import h5py  # optional, and only needed here
    except ImportError as error:
        raise BundleError(
            f"Reading {path} needs h5py. Install it with: pip install 'offramp[keras]'."
        ) from error
    if not path.is_file():
        raise BundleError(f"There is no weights file {path}. Check the path.")
    try:
        with h5py.File(path) as file:
            root = file.get("model_weights", file)
            found = {_text(name): _tensors(root[_text(name)]) for name in root.attrs["layer_names"]}
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise BundleError(
            f"The weights file {path} is not in the layout that Keras used before version 3: "
            f"{error}. Download Keras's published file again, or write one in Keras 2 with "
            "model.save_weights('name.h5')."
        ) from error
    return {name.replace("/", "_"): tensors for name, tensors in found.items() if tensors}


def _paths(model: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, kind)]


def _tensors(group: Any) -> dict[str, Tensor]:
    found = {}
    for name in map(_text, group.attrs["weight_names"]):
        kind = _KINDS[name.rpartition("/")[2].partition(":")[0]]
        found[kind] = _in_torchs_order(torch.from_numpy(group[name][()]).float())
    return found


def _in_torchs_order(array: Tensor) -> Tensor:
    """Kernels (H, W, in, out) as (out, in, H, W), dense weights (in, out) as (out, in)."""
    if array.ndim == 4:
        return array.permute(3, 2, 0, 1).contiguous()
    return array.T.contiguous() if array.ndim == 2 else array


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
