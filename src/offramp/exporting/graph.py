"""The ONNX graph of one torch module, self-contained and for batches of any size."""

import importlib
import inspect
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn

from offramp.bundle.manifest import BATCH
from offramp.errors import ExportError, ExtraError

OPSET = 20
"""Version of ONNX's operators that graphs are written in."""
MOST_BYTES = 2**31
"""A file of ONNX, which is one protobuf message, is smaller than this."""

_ROWS = 3  # of the sample: an exporter may take 1 for a constant, and 2 for a pair
_LIBRARIES = ("onnx", "onnxscript")
_LOGGERS = (
    "torch.onnx",
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "onnxscript",
    "onnx_ir",
)
_MOST_ROWS = 2**31 - 1  # without a limit, torch 2.7 sees slices as limiting the batch
_ONE_AT_A_TIME = threading.Lock()  # what is silenced is silenced for the whole process
_NOTES = ("metadata_props", "doc_string")  # where a module's code lies, among others


def onnx_graph(
    module: nn.Module,
    inputs: Sequence[Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> bytes:
    """The ONNX graph of a module that takes `inputs` and returns a tuple of tensors, as a file.

    It is the module in evaluation mode. The file holds all weights, and nothing about the machine
    it was made on; the same module gives the same bytes. The first axis of every input and output
    is symbolic and called "batch".

    Args:
        module: It is called with one argument for each input. A single tensor is as good as a tuple
            of one.
        inputs: An example of each input, (B, ...). The number of rows does not matter, and the
            values only where the module's Python code reads them.
        input_names: Of the graph, in the order of `inputs`.
        output_names: Of the graph, in the order in which the module returns them.

    Raises:
        ExtraError: onnx or onnxscript is not installed.
        ExportError: The module cannot be written as a graph that takes batches of any size, or the
            names do not fit it.
    """
    onnx = _libraries()[0]
    _check_given(module, inputs, [*input_names, *output_names])
    with _quiet(), _evaluating(module), torch.no_grad():
        graph = _translated(_captured(module, [_sized(each) for each in inputs]))
        if graph.functions:
            graph = importlib.import_module("onnx.inliner").inline_local_functions(graph)
        _strip(graph)
        _name(onnx, graph.graph, input_names, output_names)
        _check_axes(graph.graph)
        written: bytes = graph.SerializeToString(deterministic=True)
        onnx.checker.check_model(written, full_check=True)
    return written


def _libraries() -> list[Any]:
    """What the exporter of torch needs, which torch does not install."""
    try:
        return [importlib.import_module(name) for name in _LIBRARIES]
    except ImportError as error:
        raise ExtraError(
            f"writing ONNX graphs needs {' and '.join(_LIBRARIES)} ({error}). Install them with: "
            "pip install 'offramp[export]'"
        ) from error


def _check_given(module: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]) -> None:
    """Refuse what would fail late, or give a file that nothing can read."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExportError(
            f"the names {twice} stand for several inputs or outputs of one graph, which could not "
            "be told apart. Give each a name of its own."
        )
    bare = [i for i, each in enumerate(inputs) if each.dim() == 0 or len(each) == 0]
    if bare or not inputs:
        shapes = [tuple(each.shape) for each in inputs]
        raise ExportError(
            f"the inputs have the shapes {shapes}, but a graph needs at least one input, and each "
            "needs a first axis, the batch, with at least one row."
        )
    weights = {id(each): each for each in (*module.parameters(), *module.buffers())}
    num_bytes = sum(each.numel() * each.element_size() for each in weights.values())
    if num_bytes >= MOST_BYTES:
        raise ExportError(
            f"{type(module).__name__} has {num_bytes / 2**30:.1f} GB of weights, but one ONNX file "
            "holds less than 2 GB. Cut the network at more places, so that each stage is smaller."
        )


def _sized(values: Tensor) -> Tensor:
    """The same with `_ROWS` rows: (_ROWS, ...) from (B, ...)."""
    rows = torch.arange(_ROWS, device=values.device) % len(values)
    return values.detach().index_select(0, rows)


class _Flat(nn.Module):
    """A module that always returns a tuple."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.module(*inputs)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _captured(module: nn.Module, inputs: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """The module's operators, by torch.export.

    `torch.onnx.export` would call it too, but where the batch cannot be symbolic it tries again
    with a fixed one.
    """
    batch = torch.export.Dim(BATCH, max=_MOST_ROWS)
    axes = (tuple({0: batch} for _ in inputs),)
    try:
        with redirect_stderr(io.StringIO()):  # where torch prints the operators of what it refuses
            return torch.export.export(
                _Flat(module), tuple(inputs), dynamic_shapes=axes, strict=False
            )
    except Exception as error:  # whatever a user's module raises, or torch about it
        raise ExportError(_why_not(module, error)) from error


def _why_not(module: nn.Module, error: Exception) -> str:
    name, text = type(module).__name__, str(error).strip()
    if f"constant ({_ROWS})" in text:
        return (
            f"the graph of {name} would take batches of {_ROWS} only, the sample it was made from: "
            "its forward uses the number of rows as a plain number. Write -1 or x.shape[0] there, "
            "not len(x), int(x.shape[0]) or a constant."
        )
    found = re.search(r"^ +- (.*)", text, re.MULTILINE)  # why the batch is limited
    reason = found.group(1) if found else text.partition("\n")[0]
    return (
        f"{name} cannot be written as an ONNX graph for batches of any size, since torch.export "
        f"cannot follow its forward: {type(error).__name__}: {reason}. Rewrite that part with "
        "plain tensor operators, or cut elsewhere."
    )


def _translated(program: torch.export.ExportedProgram) -> Any:
    """An ONNX model (a protobuf message) of captured operators."""
    known = inspect.signature(torch.onnx.export).parameters
    options: dict[str, Any] = {"fallback": False} if "fallback" in known else {}
    try:
        translated = torch.onnx.export(
            program,
            (),
            None,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            verbose=False,
            **options,
        )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            "torch.onnx.export cannot translate this network: "
            f"{type(error).__name__}: {reason}. Use a newer torch or onnxscript, or replace the "
            "operator that it names."
        ) from error
    return translated.model_proto  # type: ignore[union-attr]  # the old exporter gives None


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages in it, but for what is in tensors."""
    yield message
    if message.DESCRIPTOR.name == "TensorProto":
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from _messages(each)


def _strip(model: Any) -> None:
    """Drop notes for people, which hold the paths of this machine, from a model."""
    for message in _messages(model):
        for note in _NOTES:
            if note in message.DESCRIPTOR.fields_by_name:
                message.ClearField(note)
    weights = {weight.name for weight in model.graph.initializer}
    kept = [each for each in model.graph.value_info if each.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def _name(onnx: Any, graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs, outputs and the batch their names."""
    for values, names, kind in ((graph.input, inputs, "input"), (graph.output, outputs, "output")):
        if len(values) != len(names):
            raise ExportError(
                f"{kind}s of the graph: {len(values)}; names given for them: {len(names)} "
                f"{list(names)}. Give one name for each {kind}."
            )
    _separate(onnx, graph)
    found = [value.name for value in (*graph.input, *graph.output)]
    new = dict(zip(found, [*inputs, *outputs], strict=True))
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    wanted = {*new.values()}
    taken = wanted | used
    for name in sorted((used | {weight.name for weight in graph.initializer}) - {*new}):
        if name in wanted:
            new[name] = _free(name, taken)
    _rename(graph, new)


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken yet, and now is."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _separate(onnx: Any, graph: Any) -> None:
    """Give an output that is also an input, a weight or another output a value of its own."""
    seen = {value.name for value in (*graph.input, *graph.initializer)}
    for i, output in enumerate(graph.output):
        if output.name in seen:
            copied = f"{output.name}_output_{i}"
            graph.node.append(onnx.helper.make_node("Identity", [output.name], [copied]))
            output.name = copied
        seen.add(output.name)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename values wherever they stand, and the axis that is the first of the first input."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for message in _messages(graph):
        kind = message.DESCRIPTOR.name
        if kind == "NodeProto":
            for values in (message.input, message.output):
                values[:] = [names.get(name, name) for name in values]
        elif kind in ("ValueInfoProto", "TensorProto"):
            message.name = names.get(message.name, message.name)
        elif kind == "Dimension" and symbol and message.dim_param:
            message.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", BATCH, message.dim_param)


def _check_axes(graph: Any) -> None:
    """Refuse a graph in which a first axis is not the batch."""
    for value in (*graph.input, *graph.output):
        axes = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if axes[:1] != [BATCH]:
            raise ExportError(
                f"{value.name} has the shape {axes} in the graph, but a first axis that is the "
                f"batch ({BATCH!r}) is needed, since samples are answered together. Let the module "
                "take and return tensors with one row per sample."
            )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and every part of it back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself, in warnings and logs."""
    with _ONE_AT_A_TIME, ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        for libraries in (r"(torch|onnx|onnxscript|onnx_ir|copyreg)\b", re.escape(__name__)):
            warnings.filterwarnings("ignore", module=libraries)
        for logger in map(logging.getLogger, _LOGGERS):
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        yield
