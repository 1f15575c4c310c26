"""Backbones by name, as a table: torchvision's, timm's, the paper's, the shipped one, a file's."""

import difflib
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from offramp.backbones.entry import PRETRAINED, Backbone, BuildRequest
from offramp.backbones.finetuned import Finetuned
from offramp.backbones.libraries import LIBRARIES
from offramp.backbones.paper.entries import ENTRIES as PAPER
from offramp.backbones.python_file import module_from
from offramp.backbones.top import Top, put_top, top_place
from offramp.backbones.weights import load_weights, read_weights, renamed
from offramp.compute import seeded
from offramp.errors import BundleError, PlanError
from offramp.preprocess import ImagePreprocess

PYTHON = "python"

_ENTRIES = (
    Backbone(
        "offramp:demo",
        lambda request: timm.create_model("tf_efficientnet_lite0", num_classes=10),
        inputs=(ImagePreprocess(height=112, width=112),),
        shipped="tf_efficientnet_lite0-fashion_mnist-112px.safetensors",
        fixed="offramp:demo has its own weights and 10 outputs. Leave out weights, num_outputs and "
        "options, or use timm:tf_efficientnet_lite0.",
        num_outputs=10,
    ),
    *PAPER,
    Backbone(
        PYTHON,
        lambda request: module_from(request.backbone_file or ""),
        fixed="A backbone from a Python file brings its own weights and outputs. Leave out "
        "weights, num_outputs and options, and set them in the function.",
    ),
)
_TABLE = {entry.name: entry for entry in _ENTRIES}


def build(
    name: str,
    *,
    weights: str | Path | None = None,
    num_outputs: int | None = None,
    backbone_file: str | None = None,
    options: Mapping[str, Any] | None = None,
    top: Top | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build a backbone in evaluation mode.

    Args:
        name: `torchvision:NAME`, `timm:NAME`, `paper:NAME`, `offramp:demo` (the shipped one,
            always with its weights), or `python` for `backbone_file`.
        weights: None for random weights, which touches no network; `pretrained` for the library's
            own set, which may download; a folder that `offramp finetune` wrote, which also says
            num_outputs, options and top; or a `.safetensors` or state-dict file, and for the
            paper's image backbones Keras's `.h5`.
        num_outputs: Ends the backbone in that many outputs instead of its own classes; for the
            paper's, in the paper's top.
        backbone_file: `path/to/file.py:function`, for `python` only. It runs that code.
        options: Further arguments of the library's constructor, such as `{"in_chans": 1}` for
            timm. `torchvision:inception_v3` and `googlenet` rescale their input as their
            pretrained sets need it where they are given any weights;
            `{"transform_input": False}` is for a file that was trained without.
        top: Dense layers with `num_outputs` in place of the last layer, whose weights in a file
            are not needed then.
        seed: Of the random weights.

    Raises:
        PlanError: No such backbone, or settings that do not go together.
        BundleError: The weights file is missing, damaged or for another model, or the pretrained
            set cannot be downloaded.
    """
    entry = describe(name)
    request = BuildRequest(
        num_outputs,
        None if weights is None else str(weights),
        weights == PRETRAINED,
        options or {},
        backbone_file,
        top,
    )
    found = Finetuned.at(request.weights)
    if found is not None:
        return _build_finetuned(entry, request, found)
    _check(entry, request)
    model = _make(entry, request, seed)
    new = () if top is None else (f"{top_place(model)}.",)
    if entry.shipped is not None:
        with as_file(files("offramp") / "data" / "backbone" / entry.shipped) as path:
            load_weights(model, read_weights(path), str(path), new)
    elif request.weights is not None and not request.download:
        state = _state(entry, model, request.weights)
        load_weights(model, state, request.weights, (*entry.unused, *new))
    return model


def architecture(
    name: str,
    *,
    weights: str | None = None,
    num_outputs: int | None = None,
    backbone_file: str | None = None,
    options: Mapping[str, Any] | None = None,
    top: Top | None = None,
    seed: int = 0,
) -> nn.Module:
    """A backbone in evaluation mode with random weights, ready for those named by `weights`.

    Nothing is read or downloaded. Arguments as in `build`; `weights` matters where an architecture
    depends on them.

    Raises:
        PlanError: No such backbone.
    """
    request = BuildRequest(num_outputs, weights, False, options or {}, backbone_file, top)
    return _make(describe(name), request, seed)


def describe(name: str) -> Backbone:
    """The row of a backbone: how it is built, its named cuts, what its weights want as input.

    Raises:
        PlanError: No such backbone, with the nearest names.
    """
    library, _, model = name.partition(":")
    if name in _TABLE:
        return _TABLE[name]
    if library in LIBRARIES and LIBRARIES[library].knows(model):
        return LIBRARIES[library].backbone(model)
    raise _unknown(name)


def settled_options(
    name: str, weights: str | None, options: Mapping[str, Any]
) -> dict[str, bool | int | float | str]:
    """The options of a backbone with those that depend on its weights, which can be stored."""
    request = BuildRequest(weights=weights, options=options)
    return {**describe(name).settled(request), **options}


def check_name(name: str) -> None:
    """Refuse a name that `build` does not know; nothing is built.

    Raises:
        PlanError: No such backbone, with the nearest names.
    """
    describe(name)


def _build_finetuned(entry: Backbone, request: BuildRequest, found: Finetuned) -> nn.Module:
    _check_file(entry.name, request.backbone_file)
    model = _make(entry, found.request(entry.name, request), seed=0)
    load_weights(model, found.tensors(), str(found.folder))
    return model


def _make(entry: Backbone, request: BuildRequest, seed: int) -> nn.Module:
    with seeded("backbone", entry.name, seed):
        try:
            made = entry.make(request)
        except OSError as error:  # urllib's and huggingface_hub's errors are such
            if not request.download:
                raise
            raise BundleError(
                f"The pretrained weights of {entry.name} cannot be downloaded "
                f"({type(error).__name__}: {error}). Check the internet connection, or download "
                "them elsewhere and give the file as weights."
            ) from error
        except (TypeError, ValueError) as error:
            if not request.options:
                raise
            raise PlanError(
                f"{entry.name} cannot be built with options {dict(request.options)}: {error}. "
                "Options are arguments of the library's constructor."
            ) from error
        if request.top is not None and request.num_outputs is not None:
            put_top(made, request.top, request.num_outputs)
    return made.eval()


def _state(entry: Backbone, model: nn.Module, weights: str) -> Mapping[str, Tensor]:
    """What a weights file holds, of torch or in another form that the backbone knows."""
    path = Path(weights)
    other = entry.reads(path, model)
    if other is not None:
        return other
    state = read_weights(path)
    if reason := entry.refuses(renamed(state, model.state_dict())):
        raise BundleError(f"{weights} {reason}")
    return state


def _check(entry: Backbone, request: BuildRequest) -> None:
    name, asked = entry.name, request.num_outputs
    _check_file(name, request.backbone_file)
    if request.top is not None and asked is None:
        raise PlanError(f"a new top of {name} needs num_outputs, the number of its outputs.")
    chosen = request.weights is not None or request.options
    own = request.top is None and asked not in (None, entry.num_outputs)
    if entry.fixed and (chosen or own):
        hint = f" {request.weights} is not a folder that `offramp finetune` has finished."
        raise PlanError(entry.fixed + (hint if request.weights is not None else ""))
    if request.download and not entry.pretrained:
        advice = entry.published or "Give a weights file, or none."
        raise PlanError(f"{name} has no pretrained weights that offramp can download. {advice}")


def _check_file(name: str, file: str | None) -> None:
    if name == PYTHON and file is None:
        raise PlanError(
            "the backbone is `python`, and nothing says which function returns it. Give --backbone "
            "path/to/file.py:function (in Python: backbone_file=)."
        )
    if name != PYTHON and file is not None:
        raise PlanError(
            f"--backbone {file} gives the backbone, and so does the name {name!r}. Leave out "
            "--backbone, or write `backbone: {name: python}`."
        )


def _unknown(name: str) -> PlanError:
    listed = [f"{key}:{model}" for key, library in LIBRARIES.items() for model in library.names()]
    known = [*_TABLE, *listed]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
    tail = name.rpartition(":")[2]
    exact = [model for model in known if model.rpartition(":")[2] == tail]
    found = list(dict.fromkeys([*exact, *near]))
    hint = f" Nearest: {', '.join(found)}." if found else ""
    own = ", ".join(each for each in _TABLE if each != PYTHON)
    return PlanError(
        f"There is no backbone {name!r}.{hint} Backbones are torchvision:NAME, timm:NAME, {own}, "
        "and path/to/file.py:function given by --backbone."
    )
