"""Absent inputs in a batch: filled for the backbone, and marked in the taps computed from them.

The backbone computes all samples of a batch alike, with zeros where a sample lacks an input. What
it computes from them means nothing, so those rows of a tap are NaN, which no other tap may hold.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.answering.inputs import Numbers
from offramp.data import Batch

Lacking = NDArray[np.bool_] | None
"""Rows (B,) that lack an input; None where none does."""
Absent = Mapping[str, tuple[Lacking, ...]]
"""For each cut and each of its taps, the rows that lack an input that it is computed from."""


def filled(
    batch: Batch, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype]
) -> tuple[Tensor, ...]:
    """The inputs of a batch (B, ...), with zeros where samples lack one."""
    return tuple(
        torch.zeros(len(batch), *shape, dtype=dtype) if values is None else values
        for values, shape, dtype in zip(batch.values, shapes, dtypes, strict=False)
    )


def lacking(present: NDArray[np.bool_] | None, needed: Numbers) -> Lacking:
    """The rows that lack one of the needed inputs, by which inputs (B, inputs) are present."""
    if present is None:
        return None
    rows = np.asarray((~present[:, sorted(needed)]).any(axis=1))
    return rows if rows.any() else None


def marked(tap: Tensor, rows: Lacking) -> Tensor:
    """A tap (B, ...) with NaN in these rows."""
    if rows is None:
        return tap
    found = tap.clone()
    found[torch.from_numpy(rows).to(tap.device)] = torch.nan
    return found


def remaining(tap: Tensor, rows: Lacking) -> Tensor:
    """The other rows of a tap."""
    return tap if rows is None else tap[torch.from_numpy(~rows).to(tap.device)]
