"""One row of the zoo's table: how a backbone is built, where it is cut, what it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from offramp.backbones.staged import Cut
from offramp.preprocess import ImagePreprocess

PRETRAINED = "pretrained"


@dataclass(frozen=True)
class BuildRequest:
    """What a caller of the zoo asks for.

    Attributes:
        num_outputs: Outputs in place of the backbone's own; None keeps those.
        weights: None for random ones, `pretrained`, or a file; an architecture can depend on which
            of the three it will hold.
        download: Whether `pretrained` weights are fetched now. Where not, they will be copied in.
        options: Further arguments of the constructor.
        backbone_file: `path/to/file.py:function`.
    """

    num_outputs: int | None = None
    weights: str | None = None
    download: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone_file: str | None = None


@dataclass(frozen=True)
class Backbone:
    """One backbone that the zoo knows.

    Attributes:
        name: As plans write it.
        make: Builds it, with random weights or with the pretrained set.
        pretrained: Whether there is a set to download.
        cuts: Named cuts, for use as keys of a plan's `branches`.
        inputs: How each input is made for its weights; empty where that is not known.
        unused: Beginnings of the names of weights for parts that it is built without.
        shipped: File in `offramp/data/backbone` that holds its weights.
        fixed: Why neither weights nor outputs nor options can be chosen; None where they can.
        num_outputs: Of a fixed backbone, the number that may be asked for all the same.
        published: Which weights file to get and from where, for errors; empty where any will do.
        reads: Makes a state dict of weights in another form than torch's; None where a path is
            not in that form.
        refuses: Why a state dict is that of a similar network which gives other answers; None
            where it is not.
    """

    name: str
    make: Callable[[BuildRequest], nn.Module]
    pretrained: bool = False
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    inputs: tuple[ImagePreprocess, ...] = ()
    unused: tuple[str, ...] = ()
    shipped: str | None = None
    fixed: str | None = None
    num_outputs: int | None = None
    published: str = ""
    reads: Callable[[Path, nn.Module], Mapping[str, Tensor] | None] = lambda path, model: None
    refuses: Callable[[Mapping[str, Tensor]], str | None] = lambda state: None
