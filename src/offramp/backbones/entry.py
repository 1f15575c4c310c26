"""Rows of the zoo's table: how a backbone is built, where it is cut, what it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from offramp.backbones.staged import Cut
from offramp.backbones.top import Top
from offramp.preprocess import Preprocess

PRETRAINED = "pretrained"


@dataclass(frozen=True)
class BuildRequest:
    """A request to build a backbone.

    Attributes:
        num_outputs: Number of outputs of a new top; None keeps the backbone's own.
        weights: None for random weights, `pretrained`, or a file. The architecture can depend on
            which of these it will hold.
        download: Whether `pretrained` weights are downloaded now; otherwise they are copied later.
        options: Further arguments of the constructor.
        backbone_file: `path/to/file.py:function`.
        top: New dense layers with `num_outputs`, in place of the last layer.
    """

    num_outputs: int | None = None
    weights: str | None = None
    download: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone_file: str | None = None
    top: Top | None = None


@dataclass(frozen=True)
class Backbone:
    """One backbone that the zoo knows.

    Attributes:
        name: Name in plans.
        make: Function that builds it, with random weights or with the pretrained set.
        pretrained: Whether there is a set to download.
        cuts: Named cuts, which can be keys of a plan's `branches`.
        inputs: Preprocessing that its weights expect of each input; empty if it is not known.
        unused: Prefixes of weights for parts that it is built without.
        shipped: File in `offramp/data/backbone` with its weights.
        fixed: Reason why weights, outputs and options cannot be chosen; None if they can.
        num_outputs: Number of outputs of a fixed backbone, which may be given.
        published: Advice on which weights file to get, for errors; empty if there is none.
        reads: Function that reads weights in another form than torch's as a state dict; it returns
            None for a path that is not in that form.
        settled: Function that returns the options that depend on the weights, so that a network
            of the same architecture can be built for other weights.
        refuses: Function that returns why a state dict, under the network's own names, belongs to
            a similar network with other answers, or None.
    """

    name: str
    make: Callable[[BuildRequest], nn.Module]
    pretrained: bool = False
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    inputs: tuple[Preprocess, ...] = ()
    unused: tuple[str, ...] = ()
    shipped: str | None = None
    fixed: str | None = None
    num_outputs: int | None = None
    published: str = ""
    reads: Callable[[Path, nn.Module], Mapping[str, Tensor] | None] = lambda path, model: None
    settled: Callable[[BuildRequest], Mapping[str, Any]] = lambda request: {}
    refuses: Callable[[Mapping[str, Tensor]], str | None] = lambda state: None
