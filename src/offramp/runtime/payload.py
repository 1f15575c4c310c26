"""Payload: what crosses from one machine to another at a cut, as safetensors bytes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError

from offramp.answering import Asked
from offramp.answering.inputs import NONE, Numbers
from offramp.arguments import check_kind
from offramp.bundle import Bundle, BundleManifest
from offramp.errors import BundleError, CutError, DataError, PlanError, ShapeError
from offramp.runtime.encoding import (
    Encoding,
    TensorFacts,
    check_encoding,
    decoded,
    encoded,
    encoded_facts,
)
from offramp.spec import Spec
from offramp.table import bytes_text

SCHEMA = "offramp payload 1"
_LIVE, _ANSWERS, _SCORES = "live:", "answers", "scores"
_LONGEST_HEADER = 2**20  # bytes; a header has about 1,000
_NUMPY_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "U8": "uint8",
    "BOOL": "bool",
}
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PayloadFacts(Spec):
    """What a payload says of itself.

    Attributes:
        model: SHA-256 of the weights and settings of backbone and branches.
        engine: What ran the stages up to the cut.
        precision: What it computed in.
        cut: Where the network was left.
        encoding: Of the tensors.
        absent: Names of the inputs that the sample lacks.
        asked: Names of the exits that have answered.
        ended: Whether the last of these was sure enough, so that nothing is left to compute.
        prepared_ms: Milliseconds that preparing the sample took.
        stage_ms: Milliseconds of each stage that ran, with its branch.
    """

    model: str
    engine: str
    precision: str
    cut: str
    encoding: Encoding
    absent: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    ended: bool = False
    prepared_ms: Milliseconds = 0.0
    stage_ms: tuple[Milliseconds, ...] = ()


@dataclass(frozen=True, eq=False)
class Payload:
    """A sample at a cut.

    Attributes:
        facts: What it says of itself.
        live: Tensors (1, ...) that later stages and branches read; none if nothing is left to do.
        answers: Outputs (1, K) of each exit that was asked, and its own score (1,) if it gives one.
    """

    facts: PayloadFacts
    live: Mapping[str, NDArray[Any]]
    answers: Sequence[Asked]


def payload_bytes(
    bundle: Bundle, cut: str, encoding: Encoding = "fp32", absent: Numbers = NONE
) -> int:
    """Bytes of the tensors of one sample at a cut; a payload has about 1,000 more.

    Args:
        bundle: The bundle; nothing of it runs.
        cut: Name of the cut.
        encoding: Of the tensors.
        absent: Numbers of the inputs that the sample lacks.

    Raises:
        CutError: There is no such cut.
        PlanError: There is no such encoding.
    """
    check_encoding(encoding)
    check_cut(bundle.manifest, cut)
    return sum(each.num_bytes for each in _stored(bundle.manifest, cut, encoding, absent).values())


def check_cut(manifest: BundleManifest, cut: object) -> None:
    """Refuse what is not one of the cuts.

    Raises:
        CutError: It names those that there are.
    """
    check_kind(cut, str, "cut", "Give the name of a cut.")
    if cut not in manifest.facts.cuts:
        raise CutError(
            f"there is no cut {cut!r} in this bundle. Use one of {', '.join(manifest.facts.cuts)}."
        )


def packed(payload: Payload) -> bytes:
    """The bytes of a payload.

    Raises:
        DataError: A tensor has numbers that are not finite, or too large for its encoding.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in payload.live.items():
        arrays |= encoded(_LIVE + name, array, payload.facts.encoding)
    if payload.answers:
        arrays[_ANSWERS] = np.concatenate([outputs for outputs, _ in payload.answers])
        own = [score for _, score in payload.answers if score is not None]
        if own:
            arrays[_SCORES] = np.concatenate(own)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {"schema": SCHEMA, "facts": payload.facts.model_dump_json()}
    return safetensors.numpy.save(arrays, metadata)


def unpacked(payload: bytes, manifest: BundleManifest) -> Payload:
    """Read bytes that came from elsewhere, for a bundle with this manifest.

    Raises:
        DataError: They are damaged, too large, of an unknown schema, have numbers that are not
            finite, or say what cannot be.
        BundleError: They are for another model.
        ShapeError: Tensors are missing, not expected, or have another shape or type.
    """
    check_kind(payload, (bytes, bytearray), "payload", "Give what run_until returned.")
    content = bytes(payload)
    header = _header(content)
    facts = _facts(header.pop("__metadata__", None))
    _check_facts(facts, manifest)
    wanted = _wanted(facts, manifest)
    most = sum(each.num_bytes for each in wanted.values()) + _LONGEST_HEADER
    if len(content) > most:
        raise DataError(
            f"the payload has {bytes_text(len(content))}, and one at the cut {facts.cut!r} in "
            f"{facts.encoding} has {bytes_text(most)} at most. Send what run_until returned."
        )
    _check_tensors(header, wanted)
    try:
        found = {name: np.array(each) for name, each in safetensors.numpy.load(content).items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(str(error)) from error
    return _read(facts, manifest, found)


def _read(
    facts: PayloadFacts, manifest: BundleManifest, arrays: Mapping[str, NDArray[Any]]
) -> Payload:
    absent = manifest.facts.numbers(facts.absent)
    names = () if facts.ended else tensors_at(manifest, facts.cut, absent)
    live = {name: decoded(_LIVE + name, arrays, facts.encoding) for name in names}
    for name in {_ANSWERS, _SCORES} & arrays.keys():
        if not np.isfinite(arrays[name]).all():
            raise DataError(
                f"the {name} of earlier exits in the payload are not finite. Check the sample, and "
                "what sent it."
            )
    answers: list[Asked] = []
    own = iter(arrays.get(_SCORES, ()))
    for row, name in enumerate(facts.asked):
        score = np.array([next(own)]) if _gives_score(manifest, name) else None
        answers.append((arrays[_ANSWERS][row : row + 1], score))
    return Payload(facts, live, answers)


def _header(content: bytes) -> dict[str, Any]:
    """The header of safetensors: entries by name, and metadata."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise _damaged(f"it has {len(content)} bytes and ends within its header")
    if length > _LONGEST_HEADER:
        raise DataError(
            f"the payload's header has {bytes_text(length)}, and {bytes_text(_LONGEST_HEADER)} is "
            "the most that is read. Send what run_until returned."
        )
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise _damaged("its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged("its header is not an object")
    return header


def _facts(metadata: object) -> PayloadFacts:
    found = metadata if isinstance(metadata, dict) else {}
    if found.get("schema") != SCHEMA:
        raise DataError(
            f"the payload says {str(found.get('schema'))[:60]!r}, and this version reads "
            f"{SCHEMA!r}. Use the same version of offramp on both machines."
        )
    try:
        return PayloadFacts(**json.loads(found["facts"]))
    except (PlanError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(f"what it says of itself cannot be read: {error}") from error


def _check_facts(facts: PayloadFacts, manifest: BundleManifest) -> None:
    if facts.model != manifest.model:
        raise BundleError(
            f"the payload was computed with the model {facts.model[:12]!r}, and this bundle has "
            f"{manifest.model[:12]!r}. Use the same bundle on both machines."
        )
    model = manifest.facts
    if facts.cut not in model.cuts:
        raise DataError(
            f"the payload is of a cut {facts.cut[:60]!r}, and this bundle has "
            f"{', '.join(model.cuts)}. Use the same bundle on both machines."
        )
    stages = model.cuts.index(facts.cut) + 1
    able = [name for name in model.names if name in model.cuts[:stages]]
    if not set(facts.absent) <= set(model.input_names):
        raise _damaged(f"there are no inputs {facts.absent}")
    if list(facts.asked) != [name for name in able if name in facts.asked]:
        raise _damaged(f"the exits {facts.asked} cannot have been asked up to {facts.cut!r}")
    ran = model.cuts.index(facts.asked[-1]) + 1 if facts.ended and facts.asked else stages
    if len(facts.stage_ms) != ran or (facts.ended and not facts.asked):
        raise _damaged(f"it has times of {len(facts.stage_ms)} stages, and {ran} must have run")


def _wanted(facts: PayloadFacts, manifest: BundleManifest) -> dict[str, TensorFacts]:
    """The arrays that such a payload has."""
    absent = manifest.facts.numbers(facts.absent)
    wanted = {} if facts.ended else _stored(manifest, facts.cut, facts.encoding, absent)
    if facts.asked:
        num = len(facts.asked)
        wanted[_ANSWERS] = TensorFacts((num, manifest.facts.num_outputs), "float32")
        if scores := sum(_gives_score(manifest, name) for name in facts.asked):
            wanted[_SCORES] = TensorFacts((scores,), "float64")
    return wanted


def _check_tensors(header: Mapping[str, Any], wanted: Mapping[str, TensorFacts]) -> None:
    missing, unknown = sorted(wanted.keys() - header.keys()), sorted(header.keys() - wanted.keys())
    if missing or unknown:
        raise ShapeError(
            f"the payload lacks the tensors {missing} and has others, "
            f"{[name[:60] for name in unknown[:5]]}: it does not fit this bundle. Use the same "
            "bundle on both machines."
        )
    for name, each in wanted.items():
        entry = header[name] if isinstance(header[name], dict) else {}
        dtype = _NUMPY_NAMES.get(str(entry.get("dtype")), str(entry.get("dtype"))[:20])
        if (dtype, entry.get("shape")) != (each.dtype, list(each.shape)):
            raise ShapeError(
                f"the payload's tensor {name!r} is {str(entry.get('shape'))[:60]} {dtype}, and "
                f"this bundle reads {each}. Use the same bundle on both machines."
            )


def tensors_at(
    manifest: BundleManifest, cut: str, absent: Numbers = NONE
) -> dict[str, TensorFacts]:
    """The tensors of one sample (1, ...) that cross a cut, by name."""
    number = manifest.facts.cuts.index(cut)
    found = {
        each.name: TensorFacts((1, *each.shape), each.dtype)
        for place, each in enumerate(manifest.facts.inputs)
        if place not in absent
    }
    for graph in manifest.stages:
        if graph.stage <= number and frozenset(graph.without) == absent:
            for name, shape, dtype in zip(graph.outputs, graph.shapes, graph.dtypes, strict=True):
                found[name] = TensorFacts((1, *shape), dtype)
    used = manifest.used_after(number)
    return {name: each for name, each in found.items() if name in used}


def _stored(
    manifest: BundleManifest, cut: str, encoding: Encoding, absent: Numbers
) -> dict[str, TensorFacts]:
    found: dict[str, TensorFacts] = {}
    for name, each in tensors_at(manifest, cut, absent).items():
        found |= encoded_facts(_LIVE + name, each, encoding)
    return found


def _gives_score(manifest: BundleManifest, exit: str) -> bool:
    return any(each.name == exit and each.predicts_error for each in manifest.facts.exits)


def _damaged(why: str) -> DataError:
    return DataError(f"the payload is damaged: {why}. Send it again, as run_until returned it.")
