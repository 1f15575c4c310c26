"""One graph: the stages of a bundle joined to a single graph, to compare the stages with."""

import importlib
from typing import Any

from offramp.answering.facts import StageCosts
from offramp.bundle import Bundle, StageGraph
from offramp.bundle.manifest import OUTPUTS
from offramp.errors import ExtraError

_FILE = "whole.onnx"


def as_one_graph(bundle: Bundle) -> Bundle:
    """A bundle in memory whose only stage is the whole network, and which has no early exit.

    Raises:
        ExtraError: onnx is not installed.
    """
    manifest = bundle.manifest
    facts, stages = manifest.facts, [each for each in manifest.stages if not each.without]
    inputs, content = _joined([bundle.read(each.file) for each in stages], facts.input_names)
    whole = StageGraph(
        file=_FILE,
        stage=0,
        inputs=inputs,
        outputs=(OUTPUTS,),
        shapes=((facts.num_outputs,),),
        dtypes=("float32",),
    )
    costs = StageCosts(flops=(sum(facts.stage_flops()),))
    without_exits = {"cuts": (), "exits": facts.exits[-1:], "costs": (costs,)}
    fields = {
        "facts": facts.model_copy(update=without_exits),
        "stages": (whole,),
        "branches": (),
        "times": (),
    }
    return Bundle(manifest.model_copy(update=fields), (), {_FILE: content}.__getitem__)


def _joined(stages: list[bytes], inputs: tuple[str, ...]) -> tuple[tuple[str, ...], bytes]:
    """Inputs and content of one graph of all stages, which name the tensors between them alike."""
    onnx = _onnx()
    whole, *others = [
        onnx.compose.add_prefix(
            onnx.load_from_string(content),
            f"stage{number}/",
            rename_inputs=False,
            rename_outputs=False,
        )
        for number, content in enumerate(stages)
    ]
    graph = whole.graph
    for other in others:
        for entry in other.graph.input:
            if entry.name in inputs and entry.name not in [each.name for each in graph.input]:
                graph.input.append(entry)
        graph.node.extend(other.graph.node)
        graph.initializer.extend(other.graph.initializer)
        del graph.output[:]
        graph.output.extend(other.graph.output)
    del graph.value_info[:]
    return tuple(each.name for each in graph.input), whole.SerializeToString()


def _onnx() -> Any:
    try:
        importlib.import_module("onnx.compose")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ExtraError(
            "joining the stages to one graph needs onnx, which is not installed. Install it with: "
            "pip install 'offramp[export]'"
        ) from error
