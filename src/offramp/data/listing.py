"""Listing: the files of N samples, with all that is known about them before any is opened."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from offramp.data.drawing import RandomSplit
from offramp.errors import DataError
from offramp.task import Task

_RANGES = 10  # of values, over which draws are balanced


@dataclass(frozen=True, eq=False)
class Listing:
    """N samples that lie in files, with what is known of each.

    Attributes:
        origin: Where they are listed, for messages.
        paths: (N, I) the files of each sample, as Path, one for each input.
        ids: (N,) a stable name of each.
        targets: (N,) int64 class numbers, or float32 values for regression.
        target_names: One name per class number, or the name of the value; empty if classes have
            no names.
        splits: (N,) the split each belongs to, or the shares to draw of all.
        groups: (N,) what each belongs to, such as a site.
        sources: (N,) what each was taken from, such as a film or a patient.
        stand_in: Whether the files only stand in for a published data set.
    """

    origin: Path
    paths: NDArray[np.object_]
    ids: NDArray[np.str_]
    targets: NDArray[Any]
    target_names: tuple[str, ...]
    splits: NDArray[np.str_] | RandomSplit
    groups: NDArray[np.str_] | None = None
    sources: NDArray[np.str_] | None = None
    stand_in: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def kept(self, rows: list[int]) -> Self:
        """The samples at these places."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays: dict[str, Any] = {
            n: c[rows] for n, c in columns.items() if isinstance(c, np.ndarray)
        }
        return replace(self, **arrays)

    @property
    def task(self) -> Task:
        """What the targets are."""
        return "regression" if self.targets.dtype.kind == "f" else "classification"

    @property
    def strata(self) -> NDArray[np.int64]:
        """(N,) what draws are balanced over: the class, or the tenth in which a value lies."""
        if self.task == "classification":
            return self.targets
        below = np.searchsorted(np.sort(self.targets), self.targets)
        return below * _RANGES // len(self)

    @property
    def there(self) -> set[str]:
        """Splits that need not be drawn."""
        return set() if isinstance(self.splits, RandomSplit) else {*self.splits.tolist()}

    def untrained(self, splits: NDArray[np.str_]) -> list[str]:
        """Names of the classes that have no sample where `splits` (N,) is train."""
        if self.task == "regression":
            return []
        counts = Counter(self.targets[splits == "train"].tolist())
        return [name for number, name in enumerate(self.target_names) if not counts[number]]


def check_same_classes(origin: Path, classes: Mapping[str, set[str]]) -> None:
    """Refuse splits, by name, that do not all have the same classes.

    Raises:
        DataError: It says what each split lacks.
    """
    everywhere = set.union(*classes.values())
    lacking = {name: sorted(everywhere - held) for name, held in classes.items()}
    if any(lacking.values()):
        differences = "; ".join(f"{name} lacks {', '.join(c)}" for name, c in lacking.items() if c)
        raise DataError(
            f"the classes in {origin} differ between splits: {differences}. Add samples of these "
            "classes, remove them from every split, or list the backbone's classes in `classes`: "
            "then a split may lack some."
        )
