"""Reference: how the samples that a policy was calibrated on leave, as far as drift needs it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from offramp.errors import DataError
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy

_PLACING = 10  # one of so many samples only tells where to bet
_FEWEST = 100


@dataclass(frozen=True)
class Tally:
    """Samples per category, in two parts.

    Bets may not depend on the samples that ranks are taken among, or the ranks would not be
    uniform given the bets. So some samples only place the bets, and the others are ranked with.

    Attributes:
        placing: Samples of each category that place the bets.
        ranked: Samples of each category that new answers are ranked among.
    """

    placing: tuple[int, ...]
    ranked: tuple[int, ...]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Of each category where bets are placed, none of them 0 (Krichevsky-Trofimov), (E,)."""
        counts = np.array(self.placing) + 0.5
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    @property
    def whole(self) -> NDArray[np.float64]:
        """Share of each category among all samples, (E,)."""
        counts = np.add(self.placing, self.ranked)
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what JSON made of one."""
        return cls(tuple(content["placing"]), tuple(content["ranked"]))


@dataclass(frozen=True)
class Reference:
    """What a watch compares with.

    Attributes:
        exits: Numbers of the exits that can answer.
        names: Their names.
        mix: Samples that leave at each of them.
        disagreement: Samples whose answer agrees with the final exit's, and that does not; None
            for a regression, whose answers never quite agree.
    """

    exits: tuple[int, ...]
    names: tuple[str, ...]
    mix: Tally
    disagreement: Tally | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `as_json` gave, or what JSON made of it."""
        disagreement = content["disagreement"]
        return cls(
            exits=tuple(content["exits"]),
            names=tuple(content["names"]),
            mix=Tally.from_json(content["mix"]),
            disagreement=None if disagreement is None else Tally.from_json(disagreement),
        )


def reference_of(
    outputs: ExitOutputs, policy: ExitPolicy, random: np.random.Generator
) -> Reference:
    """Count how these samples leave.

    Raises:
        ShapeError: The policy is for other exits.
        DataError: Too few samples, or no exit but the last can answer.
    """
    leaves = policy.choose(outputs)
    exits = np.flatnonzero(np.append(policy.enabled, True))
    if len(leaves) < _FEWEST or len(exits) < 2:
        raise DataError(
            f"a watch needs at least {_FEWEST} reference samples and one exit that can fire before "
            f"the last; got {len(leaves)} samples and {len(exits) - 1} such exits. Some 5,000 "
            "samples let it find a shift of 5 points within 2,000 answers."
        )
    placing = np.zeros(len(leaves), bool)
    placing[random.permutation(len(leaves))[: len(leaves) // _PLACING]] = True
    return Reference(
        exits=tuple(exits.tolist()),
        names=tuple(outputs.names[exit] for exit in exits.tolist()),
        mix=_tally(np.searchsorted(exits, leaves), placing, len(exits)),
        disagreement=_disagreement(outputs, leaves, placing),
    )


def _disagreement(
    outputs: ExitOutputs, leaves: NDArray[np.int64], placing: NDArray[np.bool_]
) -> Tally | None:
    if outputs.task == "regression":
        return None
    answers = outputs.predictions  # (E, N)
    differ = answers[leaves, np.arange(len(leaves))] != answers[-1]
    return _tally(differ.astype(np.int64), placing, 2)


def _tally(categories: NDArray[np.int64], placing: NDArray[np.bool_], count: int) -> Tally:
    parts = [np.bincount(categories[part], minlength=count) for part in (placing, ~placing)]
    return Tally(*(tuple(part.tolist()) for part in parts))
