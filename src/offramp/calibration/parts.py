"""Parts: which rows fit temperatures, which order the candidates, which test them; never two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.errors import DataError, PlanError
from offramp.outputs import ExitOutputs

ROLES = ("stopping", "temperature", "order", "test")
"""What a row is for. Those that stopped a training early are never looked at here."""

_DRAWN = {False: {"order": 0.3}, True: {"temperature": 0.15, "order": 0.25}}  # the rest tests
_USED = ("train", "validation")


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows by their role, each in the order of the outputs.

    Attributes:
        test_share: Of all rows, those that test; where roles are drawn, their chance to.
    """

    stopping: NDArray[np.int64]
    temperature: NDArray[np.int64]
    order: NDArray[np.int64]
    test: NDArray[np.int64]
    test_share: float

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of each role."""
        return {role: len(getattr(self, role)) for role in ROLES}


def parts_of(
    outputs: ExitOutputs, split: ArrayLike | None, seed: int, *, temperature: bool
) -> Parts:
    """Rows by the words in `split`, (N,), or drawn for each row from `seed`.

    A row is what is drawn: rows may share an id, as when a set is drawn with replacement.

    Raises:
        PlanError: The words are others, or not one per row.
        DataError: Nothing says which rows are fresh, and the outputs are of rows that training
            used; or a role has no row.
    """
    _check_seed(seed)
    roles = _drawn(outputs, seed, temperature) if split is None else _given(outputs, split)
    share = 1 - sum(_DRAWN[temperature].values())
    if split is not None:
        share = float((roles == "test").mean())
    return Parts(**{role: np.flatnonzero(roles == role) for role in ROLES}, test_share=share)


def _check_seed(seed: object) -> None:
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or seed < 0:  # type: ignore[operator]
        raise PlanError(f"seed={seed!r} must be a whole number from 0.")


def _drawn(outputs: ExitOutputs, seed: int, temperature: bool) -> NDArray[np.str_]:
    used = (outputs.source or {}).get("split")
    if used in _USED:
        raise DataError(
            f"these outputs are of the {used} split, which training has already looked at, so "
            "they would promise too much. Calibrate on outputs/calibration.npz, or say by `split` "
            "which rows are fresh."
        )
    num = len(outputs.labels)
    chance = np.random.default_rng(seed).random(num)
    shares = _DRAWN[temperature]
    place = np.searchsorted(np.cumsum(list(shares.values())), chance, side="right")
    return np.array([*shares, "test"])[place]


def _given(outputs: ExitOutputs, split: ArrayLike) -> NDArray[np.str_]:
    roles = np.asarray(split).astype(np.str_)
    num = len(outputs.labels)
    if roles.shape != (num,):
        raise PlanError(f"split needs one word per row, ({num},); got shape {roles.shape}.")
    unknown = sorted(set(roles.tolist()) - set(ROLES))
    if unknown:
        raise PlanError(f"split has the words {unknown}; each must be one of {_listed(ROLES)}.")
    absent = [role for role in ("order", "test") if role not in roles]
    if absent:
        raise DataError(
            f"split gives no row the role {' or '.join(absent)}: some rows have to learn the "
            "order, and others to test it. Give both, for example 3 in 10 and the rest."
        )
    return roles


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)
