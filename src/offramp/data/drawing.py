"""Drawing splits: seeded, balanced over classes, with copies and sources kept whole."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence, Set
from fnmatch import fnmatchcase
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from offramp.data.splits import SPLIT_NAMES
from offramp.errors import DataError, OfframpWarning
from offramp.outputs import independent_units
from offramp.spec import Spec

_EXACT = 1e-9  # rounding of a sum of shares


class RandomSplit(Spec):
    """Shares of all samples drawn at random for three splits; the rest trains.

    Attributes:
        validation: Share, 0 to 1.
        calibration: Share, 0 to 1.
        test: Share, 0 to 1.
        seed: The same seed and samples always give the same splits.
    """

    validation: float = Field(default=0.1, gt=0, lt=1)
    calibration: float = Field(default=0.2, gt=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        taken = self.validation + self.calibration + self.test
        if taken >= 1:
            raise ValueError(f"the shares add up to {taken:g}, which leaves nothing to train on")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Share of each split; they add up to 1."""
        given = {name: getattr(self, name) for name in ("validation", "calibration", "test")}
        return {**given, "train": 1 - sum(given.values())}


class HeldOut(Spec):
    """Shares of the held-out samples for three splits, if data comes as a train/val pair.

    If one of the three has samples of its own, the others share the held-out samples in the same
    proportions.

    Attributes:
        validation: Share, 0 to 1.
        calibration: Share, 0 to 1.
        test: Share, 0 to 1.
        seed: The same seed and samples always give the same splits.
    """

    validation: float = Field(default=0.25, gt=0, lt=1)
    calibration: float = Field(default=0.5, gt=0, lt=1)
    test: float = Field(default=0.25, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _everything_is_used(self) -> Self:
        total = self.validation + self.calibration + self.test
        if abs(total - 1) > _EXACT:
            raise ValueError(f"the shares of held-out samples must add up to 1, not {total:g}")
        return self

    def shares(self, names: tuple[str, ...]) -> dict[str, float]:
        """Share of each of these splits, scaled to add up to 1."""
        given = {name: float(getattr(self, name)) for name in names}
        return {name: share / sum(given.values()) for name, share in given.items()}


def drawn(
    shares: Mapping[str, float],
    seed: int,
    digests: NDArray[np.str_],
    labels: NDArray[np.int64],
    sources: NDArray[np.str_] | None = None,
) -> NDArray[np.str_]:
    """Name of the split (N,) that each sample is drawn into.

    Samples with equal content, or of one source, form a unit and are never parted. Each class is
    spread over the splits in proportion, as far as units allow. The draw depends on the content of
    the samples and the seed, not on names or order.

    Args:
        shares: Share of the samples for each split; they add up to 1.
        seed: Seed of the draw.
        digests: (N,) SHA-256 of each sample.
        labels: (N,) class numbers.
        sources: (N,) what each sample was taken from, such as a film or a patient.
    """
    if not len(digests):
        return np.array([], np.str_)
    joined = independent_units(digests, sources)
    units = np.arange(len(digests)) if joined is None else joined
    sizes = np.bincount(units)
    content = np.full(len(sizes), "", object)
    classes = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(classes, units, labels)
    for unit, digest in zip(units, digests, strict=True):
        content[unit] = min(content[unit] or digest, digest)
    keys = np.array([hashlib.sha256(f"{seed}/{one}".encode()).hexdigest() for one in content])
    within = np.empty(len(sizes))
    for number in np.unique(classes):
        members = np.flatnonzero(classes == number)
        members = members[np.argsort(keys[members])]
        within[members] = _middles(sizes[members])
    order = np.lexsort((keys, within))
    place = np.empty(len(sizes))
    place[order] = _middles(sizes[order])
    names = np.array(list(shares))
    edges = np.cumsum(list(shares.values()))[:-1]
    found: NDArray[np.str_] = names[np.searchsorted(edges, place, side="right")][units]
    return found


def complete(
    splits: NDArray[np.str_],
    there: Set[str],
    held_out: HeldOut,
    digests: NDArray[np.str_],
    labels: NDArray[np.int64],
    sources: NDArray[np.str_] | None = None,
) -> NDArray[np.str_]:
    """Splits (N,), where those that are not `there` are drawn from validation, or else from test.

    Args:
        splits: (N,) split that each sample comes in.
        there: Splits that the data comes in: train and at least one of validation and test.
        held_out: Shares of the samples that are drawn.
        digests: See `drawn`, as labels and sources.
        labels: (N,)
        sources: (N,)
    """
    missing = [name for name in ("validation", "calibration", "test") if name not in there]
    if not missing:
        return splits
    pool = pool_of(there)
    rows = splits == pool
    names = tuple(n for n in ("validation", "calibration", "test") if n in {*missing, pool})
    found = splits.astype(f"U{max(map(len, SPLIT_NAMES))}")
    found[rows] = drawn(
        held_out.shares(names),
        held_out.seed,
        digests[rows],
        labels[rows],
        None if sources is None else sources[rows],
    )
    return found


def pool_of(there: Set[str]) -> str:
    """The split from which those that are not `there` are drawn."""
    return "validation" if "validation" in there else "test"


def matching(ids: NDArray[np.str_], patterns: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each id (N,), a path, lies in one of these folders or matches one of these patterns.

    Raises:
        DataError: A pattern matches nothing.
    """
    found = np.zeros(len(ids), bool)
    for pattern in patterns:
        inside = f"{pattern.rstrip('/')}/*"
        fits = np.array([fnmatchcase(one, pattern) or fnmatchcase(one, inside) for one in ids])
        if not fits.any():
            raise DataError(
                f"`trained_on` names {pattern!r}, but no sample matches it. Name a folder or a "
                f"pattern of paths such as {str(ids[0])!r}."
            )
        found |= fits
    return found


def warn_of_training(
    splits: NDArray[np.str_], digests: NDArray[np.str_], trained: NDArray[np.bool_]
) -> None:
    """Warn if samples that the backbone was trained on are used to calibrate or to test it."""
    known = np.isin(digests, digests[trained])
    counts = {name: (int(known[splits == name].sum()), name) for name in ("calibration", "test")}
    parts = [f"{num} of {(splits == name).sum()} {name}" for num, name in counts.values() if num]
    if parts:
        warnings.warn(
            f"{' and '.join(parts)} samples were used to train the backbone. It answers these "
            "better than new ones, so thresholds calibrated on them break their promise on new "
            "samples, and test accuracies are too high. Use samples that it was not trained on.",
            OfframpWarning,
            stacklevel=2,
        )


def _middles(sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where the middle of each unit lies, 0 to 1, when they are laid end to end."""
    ends = np.cumsum(sizes)
    middles: NDArray[np.float64] = (ends - sizes / 2) / ends[-1]
    return middles
