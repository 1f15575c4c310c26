"""Labelled: a data set whose samples are read one at a time, with their labels, without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from offramp.answering.sample import Sample
from offramp.errors import DataError, ShapeError
from offramp.table import counted
from offramp.task import checked_target

_NAMES = ("ids", "groups", "clusters")


@dataclass(frozen=True, eq=False)
class Labelled:
    """N samples with a label each.

    Attributes:
        data: Has `len`, and `[i]` gives (input or tuple of inputs, label).
        ids: (N,) a name of each sample, if there are names.
        groups: (N,) what each belongs to.
        clusters: (N,) the source of each.
        key: Hash of the content, where the data set knows it.
    """

    data: Any
    ids: Any = None
    groups: Any = None
    clusters: Any = None
    key: str = ""

    @classmethod
    def of(cls, data: Any) -> Self:
        """What a user gives: a data set, or a pair of arrays (inputs, labels).

        Raises:
            DataError: It is neither, or it is empty.
            ShapeError: The arrays of a pair differ in length.
        """
        given = _Pair.of(data) if _is_pair(data) else data
        if isinstance(given, tuple | Mapping) or not (
            hasattr(given, "__len__") and hasattr(given, "__getitem__")
        ):
            raise DataError(
                "a data set needs len() and [i] giving (input, label), or is a pair of arrays "
                f"(inputs, labels); got {type(data).__name__}. A stream can be read into a list "
                "first."
            )
        if len(given) == 0:
            raise DataError("the data set is empty. Check the split or the folder it comes from.")
        names = {name: getattr(given, name, None) for name in _NAMES}
        return cls(given, **names, key=str(getattr(given, "content_key", "")))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> tuple[Sample, Any]:
        """A sample as `Runtime.run` takes it, and its label.

        Raises:
            DataError: It is not a pair, or its label is not a number.
        """
        item = self.data[row]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"sample {row} is a {type(item).__name__}, not a pair (input, label). Return the "
                "input, or a tuple of inputs, and one label."
            )
        value, target = item
        parts = tuple(map(_plain, value if isinstance(value, tuple) else (value,)))
        return parts if len(parts) > 1 else parts[0], checked_target(target, row)

    def name_of(self, row: int) -> str:
        """How messages call a sample: its place, and its id if it has one."""
        return f"sample {row}" if self.ids is None else f"sample {row} (id {self.ids[row]})"


class _Pair:
    """Arrays of inputs, each (N, ...), and of labels (N,), as a data set."""

    def __init__(self, inputs: Sequence[Any], labels: Any) -> None:
        self._inputs, self._labels = inputs, labels

    @classmethod
    def of(cls, pair: Sequence[Any]) -> Self:
        inputs = pair[0] if isinstance(pair[0], tuple) else (pair[0],)
        if not all(map(_is_array, inputs)):
            raise DataError("the inputs of a pair (inputs, labels) must be arrays.")
        lengths = [*map(len, inputs), len(pair[1])]
        if len(set(lengths)) != 1:
            raise ShapeError(
                f"the arrays of a pair have {', '.join(map(str, lengths[:-1]))} inputs and "
                f"{counted(lengths[-1], 'label')}. Give one label for each row of the inputs."
            )
        return cls(inputs, pair[1])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return tuple(each[row] for each in self._inputs), self._labels[row]


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[1])


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) > 0


def _plain(part: Any) -> Any:
    """An input as `Runtime.run` takes it: a tensor becomes an array."""
    return np.asarray(part.detach().cpu()) if hasattr(part, "detach") else part
