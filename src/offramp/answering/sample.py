"""A new sample, prepared as the backbone reads it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offramp.answering.facts import ModelFacts
from offramp.answering.inputs import Numbers, absent_of
from offramp.errors import DataError, ExtraError, ShapeError
from offramp.preprocess import ImagePreprocess, Preprocess, SpectrogramPreprocess
from offramp.preprocess.media import SOUNDS, sounds_beside

Sample = Any
"""A path, the bytes of a picture or sound file, pixels uint8 (H, W) or (H, W, C), a sound (N,) at
the rate of the preprocessing, an input as the backbone reads it (without batch axis), or a tuple of
these for several inputs, with None for one that is absent."""

Prepared = tuple[NDArray[Any] | None, ...]
"""The inputs of one sample, without batch axis; None for one that is absent."""

WhereAbsent = Literal["refuse", "answer"]
"""What a picture without its sound gets: an error, or an answer of the exits that need none."""


def no_files(facts: ModelFacts) -> str:
    """Reason why files cannot be answered; empty if they can."""
    if facts.preprocess:
        return ""
    return (
        "this model does not know how to prepare files: its samples were prepared by other "
        "code. In Python, give `run` float32 arrays of shape "
        f"{_listed(facts.shapes)}, prepared by that code."
    )


def files_of(
    facts: ModelFacts, name: str, absent: WhereAbsent
) -> str | tuple[str | Path | None, ...]:
    """The files of one sample, arguments and errors as for `Opened.files_of`."""
    if len(facts.preprocess) < 2 or not Path(name).exists():
        return name  # whoever reads it says that it is missing
    if not facts.hears_beside:
        kinds = [each.kind for each in facts.preprocess]
        raise DataError(
            f"{name} alone is not a sample: the model reads {' and '.join(kinds)}. In Python, "
            "give `run` a tuple with one of each."
        )
    found, able = sounds_beside(Path(name)), facts.exits_without(1)
    if len(found) > 1:
        raise DataError(
            f"{name} has {' and '.join(path.name for path in found)} beside it, and the model "
            "reads one sound. Leave one of them there."
        )
    if not found and (absent == "refuse" or not able):
        first, *others = SOUNDS.endings
        raise DataError(
            f"{name} has no sound file beside it, and the model also reads a sound. Put "
            f"{Path(name).with_suffix(first).name} there (or {', '.join(others)})"
            + (
                f", or let {' or '.join(map(repr, able))} answer without it: --absent answer "
                "(in Python, absent='answer')."
                if able
                else ". No exit of this model answers without it."
            )
        )
    return name, (found[0] if found else None)


def prepare(facts: ModelFacts, sample: Sample, without: Numbers) -> Prepared:
    """Prepare the inputs of one sample, but for those `without` which it is answered.

    Raises:
        DataError: The sample cannot be read, or the model does not know how to prepare files.
        ShapeError: It is not what the model reads.
    """
    shapes, dtypes = facts.shapes, [each.dtype for each in facts.inputs]
    parts = sample if isinstance(sample, tuple) else (sample,)
    absent: Numbers = frozenset()
    if 1 < len(parts) == len(shapes):
        absent = absent_of(parts) | without
    known = facts.preprocess or (None,) * len(parts)
    given = tuple(
        None if number in absent else _input(facts, part, preprocess)
        for number, (part, preprocess) in enumerate(zip(parts, known, strict=False))
    )
    found = [None if each is None else each.shape for each in given]
    wanted = [None if number in absent else shape for number, shape in enumerate(shapes)]
    if found != wanted:
        raise ShapeError(
            f"the input has shape {_listed(found)}, and the model reads "
            f"{_listed(shapes)} (without the batch axis). Prepare it like the samples that the "
            "model was trained with."
        )
    for each, dtype in zip(given, dtypes, strict=True):
        if each is not None and ("float" in dtype) != (each.dtype.kind == "f"):
            raise ShapeError(
                f"the input is {each.dtype}, and the model reads {dtype}. Prepare it like the "
                "samples that the model was trained with."
            )
    return given


def _input(facts: ModelFacts, part: Any, preprocess: Preprocess | None) -> NDArray[Any]:
    """One input, prepared."""
    if isinstance(part, str | Path | bytes):
        return _decoded(facts, part, preprocess)
    if not isinstance(part, np.ndarray):
        raise DataError(
            f"a sample cannot be a {type(part).__name__}. Give a path, the bytes of a picture "
            "file, or a numpy array (a tuple of these for several inputs)."
        )
    if part.dtype == np.uint8 and isinstance(preprocess, ImagePreprocess):
        return preprocess(part)
    if part.ndim == 1 and isinstance(preprocess, SpectrogramPreprocess):
        return _decoded(facts, part, preprocess)
    if part.dtype.kind != "f":
        return part
    if not np.isfinite(part).all():
        raise DataError("the input has values that are not finite. Give finite numbers.")
    return part if part.dtype == np.float64 else part.astype(np.float32)


def _decoded(
    facts: ModelFacts, part: str | Path | bytes | NDArray[Any], preprocess: Preprocess | None
) -> NDArray[np.float32]:
    if preprocess is None:
        raise DataError(no_files(facts))
    kind = "sound" if isinstance(preprocess, SpectrogramPreprocess) else "picture"
    what = str(part) if isinstance(part, str | Path) else f"the {kind}"
    try:
        return preprocess(Path(part).read_bytes() if isinstance(part, str | Path) else part)
    except (ExtraError, ShapeError):
        raise
    except Exception as error:  # pillow's decoders raise many kinds
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise DataError(f"{what} cannot be read: {reason}.") from error


def _listed(shapes: Iterable[tuple[int, ...] | None]) -> str:
    return ", ".join(map(str, shapes))
