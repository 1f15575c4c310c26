"""Data from a function in a user's own Python file, or from anything else that gives splits."""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from offramp.data.given import as_samples
from offramp.data.images.pictures import PictureSource
from offramp.data.samples import Samples
from offramp.data.splits import SPLIT_NAMES, Splits
from offramp.errors import DataError, OfframpError, OfframpWarning, PlanError, ShapeError
from offramp.preprocess import Preprocess
from offramp.progress import Progress, silent
from offramp.python_function import call_function, short_name
from offramp.spec import Spec
from offramp.task import Task

_WANTED = f"a dict of the data sets {', '.join(SPLIT_NAMES)}, or an offramp.data.Splits"
_TARGET_NAMES = "target_names"


class PythonData(Spec):
    """Data that a function in a Python file returns; a flag names it, since plans run no code."""

    kind: Literal["python"] = "python"

    @property
    def inputs(self) -> tuple[Preprocess, ...]:
        """Unknown before the function has run, so empty."""
        return ()

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """Refuse to load: the settings do not say which function it is.

        Raises:
            PlanError: Always.
        """
        raise PlanError(
            "this plan's data is of kind `python`, but nothing says which function returns it. "
            "Give --data path/to/file.py:function (in Python: data_file=, or splits=); evaluating "
            "a run again needs it too."
        )


def splits_from(place: str, task: Task) -> Splits:
    """The splits that the function `path/to/file.py:function` returns; each sample is read once.

    Args:
        place: The function takes no arguments. It returns Splits, or a dict of the four data sets
            by name, each as `as_samples` takes it, which may also hold `target_names`.
        task: Task of the plan.

    Raises:
        PlanError: No such file or function, or an error inside them.
        DataError: It returned something else, a split is missing, is not a data set, or cannot be
            read.
        ShapeError: Splits have inputs of different shapes.

    Warns:
        OfframpWarning: A sample is in several splits.
    """
    given = call_function(place, _WANTED)
    if isinstance(given, Mapping):
        _check_keys(place, given)
        given = Splits.of(given, target_names=given.get(_TARGET_NAMES, ()), task=task)
    if not isinstance(given, Splits):
        raise DataError(f"{place} returned a {type(given).__name__}; it must return {_WANTED}.")
    _check_names(place, given.target_names)
    parts: dict[str, Any] = _samples(place, given)
    _warn_of_shared(place, parts)
    return replace(
        given,
        **parts,
        target_names=tuple(given.target_names),
        inputs=given.inputs or _inputs(parts),
        origin=short_name(place),
    )


def _check_keys(place: str, given: Mapping[Any, Any]) -> None:
    missing = [name for name in SPLIT_NAMES if name not in given]
    unknown = [str(key) for key in given if key not in (*SPLIT_NAMES, _TARGET_NAMES)]
    if missing or unknown:
        faults = {"lacks": missing, "has the unknown key": unknown}
        listed = [f"{what} {', '.join(keys)}" for what, keys in faults.items() if keys]
        raise DataError(
            f"the dict that {place} returned {' and '.join(listed)}. Its keys must be "
            f"{', '.join(SPLIT_NAMES)}, and may include {_TARGET_NAMES}. No sample may be in two "
            "of them: thresholds are calibrated and tested on samples that nothing was trained on."
        )


def _check_names(place: str, names: object) -> None:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"the {_TARGET_NAMES} that {place} returned are {names!r}. Give a list of strings, one "
            "for each class in the order of the class numbers."
        )


def _samples(place: str, given: Splits) -> dict[str, Samples]:
    parts = {name: _read(f"{name} of {place}", data) for name, data in given.named().items()}
    shapes = {name: samples.input_shapes for name, samples in parts.items()}
    if len({*shapes.values()}) > 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ShapeError(
            f"the splits of {place} have inputs of different shapes: {listed}. Prepare all of them "
            "in the same way."
        )
    return parts


def _read(what: str, data: Any) -> Samples:
    """A data set as samples, of which content and targets are known."""
    try:
        samples = as_samples(data)
        _ = samples.targets, samples.digests
    except OfframpError as error:
        raise type(error)(f"{what}: {error}") from error
    except Exception as error:
        raise DataError(
            f"{what} cannot be read, since its own code failed with {type(error).__name__}: "
            f"{error}. Read it in a loop to see where, or show the traceback with --debug."
        ) from error
    return samples


def _warn_of_shared(place: str, parts: Mapping[str, Samples]) -> None:
    counts = Counter(digest for samples in parts.values() for digest in {*samples.digests})
    if shared := sum(count > 1 for count in counts.values()):
        warnings.warn(
            f"{place} gives samples that are in more than one split ({shared:,} of them), so "
            "results there look too good. Keep each in one split.",
            OfframpWarning,
            stacklevel=2,
        )


def _inputs(parts: Mapping[str, Samples]) -> tuple[Preprocess, ...]:
    """What prepares the pictures of all splits; empty if samples come prepared."""
    sources = [samples.source for samples in parts.values()]
    known = {each.preprocess for each in sources if isinstance(each, PictureSource)}
    all_pictures = all(isinstance(each, PictureSource) for each in sources)
    return tuple(known) if all_pictures and len(known) == 1 else ()
