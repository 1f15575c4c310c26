"""The verdict: whether exits pay on a machine, and which of them, from measured times alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.record import Record

NOISE = 0.02
"""Share of the whole network's time below which a difference counts as none."""


@dataclass(frozen=True)
class Verdict(Record):
    """Whether exits pay here.

    Attributes:
        pays: Whether the exits that are kept answer faster, on average, than the whole network.
        sentence: The verdict, with its reason.
        mean_ms: Mean time of an answer with all exits that the policy uses.
        kept_ms: The same with the exits that are kept only, added up from measured parts.
        whole_ms: Time of the whole network in its fastest form.
        kept: Names of the early exits that are worth it.
        reasons: Why the others are not, by name.
    """

    pays: bool
    sentence: str
    mean_ms: float
    kept_ms: float
    whole_ms: float
    kept: tuple[str, ...]
    reasons: dict[str, str]


def judged(
    names: Sequence[str],
    own_ms: Sequence[float],
    passed_ms: Sequence[float],
    mix: Sequence[float],
    one_graph_ms: float | None = None,
) -> Verdict:
    """Judge E exits, of which the last is the whole network, stage by stage and without branches.

    Samples of an exit that is left out leave at the next one that is kept.

    Args:
        names: Of the exits.
        own_ms: Time of each on its own path.
        passed_ms: Time of each with the branches that run on the way.
        mix: Share of the samples that each answers; sums to 1.
        one_graph_ms: Time of the whole network as a single graph, if it was measured.
    """
    stages, branches = _parts(own_ms, passed_ms)
    kept, kept_ms = _worth_it(stages, branches, mix)
    mean_ms = float(np.dot(mix, passed_ms))
    if len(kept) == len(names) - 1:
        kept_ms = mean_ms  # measured as a whole, not added up
    times = _Times(
        whole_ms=min(own_ms[-1], np.inf if one_graph_ms is None else one_graph_ms),
        staged_ms=own_ms[-1],
        mean_ms=mean_ms,
        left_ms=float(np.dot(mix, stages)),
        kept_ms=kept_ms,
    )
    reasons = {
        names[exit]: _reason(exit, own_ms, mix)
        for exit in range(len(names) - 1)
        if exit not in kept
    }
    pays = bool(kept) and kept_ms < (1 - NOISE) * times.whole_ms
    sentence = times.pays(list(reasons)) if pays else f"exits do not pay here {times.why_not()}"
    return Verdict(
        pays=pays,
        sentence=sentence,
        mean_ms=mean_ms,
        kept_ms=kept_ms,
        whole_ms=times.whole_ms,
        kept=tuple(names[exit] for exit in kept) if pays else (),
        reasons=reasons if pays else dict.fromkeys(names[:-1], "exits do not pay here") | reasons,
    )


def _parts(
    own_ms: Sequence[float], passed_ms: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Time of the stages up to each exit, and of each exit's branch, (E,) both."""
    before = np.asarray(passed_ms, float) - np.asarray(own_ms, float)  # of the branches passed
    branches = np.append(np.maximum(np.diff(before), 0.0), 0.0)
    stages = np.maximum(np.asarray(own_ms, float) - branches, 0.0)
    return stages, branches


def _worth_it(
    stages: NDArray[np.float64], branches: NDArray[np.float64], mix: Sequence[float]
) -> tuple[list[int], float]:
    """The early exits with the least mean time, and that time.

    What it costs to go from one kept exit to the next does not depend on the others, so the least
    mean time is a shortest way through the exits to the last one.
    """
    remaining = [1.0, *(1.0 - np.cumsum(mix)).tolist()]  # share of samples that pass each exit
    reach = [0.0, *stages.tolist()]
    least, before = [0.0], [0]
    for exit in range(1, len(reach)):
        ways = [
            least[start] + remaining[start] * (reach[exit] - reach[start] + branches[exit - 1])
            for start in range(exit)
        ]
        before.append(int(np.argmin(ways)))
        least.append(min(ways))
    kept: list[int] = []
    place = before[-1]
    while place > 0:
        kept.insert(0, place - 1)
        place = before[place]
    return kept, float(least[-1])


def _reason(exit: int, own_ms: Sequence[float], mix: Sequence[float]) -> str:
    if min(own_ms[exit + 1 :]) <= own_ms[exit]:
        return "a later exit is not slower"
    if mix[exit] == 0:
        return "no sample leaves there"
    return "its branch costs more time than it saves"


@dataclass(frozen=True)
class _Times:
    """Mean milliseconds of an answer.

    Attributes:
        whole_ms: By the whole network in its fastest form.
        staged_ms: By the whole network, stage by stage.
        mean_ms: With all exits.
        left_ms: With all exits, if branches took no time.
        kept_ms: With the exits that are worth it.
    """

    whole_ms: float
    staged_ms: float
    mean_ms: float
    left_ms: float
    kept_ms: float

    @property
    def whole(self) -> str:
        form = "stage by stage" if self.whole_ms == self.staged_ms else "as one graph"
        return f"the whole network {form}"

    def pays(self, dropped: Sequence[str]) -> str:
        left_out = f" if {' and '.join(dropped)} {'are' if len(dropped) > 1 else 'is'} left out"
        every = f" ({self.mean_ms:.3g} ms with all exits)" if dropped else ""
        return (
            f"exits pay here{left_out if dropped else ''}: an answer takes {self.kept_ms:.3g} ms "
            f"on average{every}, {100 * (1 - self.kept_ms / self.whole_ms):.0f} % less than "
            f"{self.whole}, which takes {self.whole_ms:.3g} ms"
        )

    def why_not(self) -> str:
        saved, paid = self.staged_ms - self.left_ms, self.mean_ms - self.left_ms
        slower = self.staged_ms - self.whole_ms
        if saved <= NOISE * self.whole_ms:
            return (
                f"because samples leave too late: that saves {_ms(saved)} of the "
                f"{self.whole_ms:.3g} ms of the whole network"
            )
        if paid >= saved:
            return (
                f"because the branches cost more than they save: {_ms(paid)} for an answer, and "
                f"leaving early saves {_ms(saved)}"
            )
        if slower >= saved - paid:
            return (
                f"because the stages are slower than the whole: {self.staged_ms:.3g} ms in turn, "
                f"{self.whole_ms:.3g} ms as one graph, and exits save {_ms(saved - paid)}"
            )
        return (
            f"because they save too little: an answer takes {self.mean_ms:.3g} ms on average, and "
            f"{self.whole} takes {self.whole_ms:.3g} ms"
        )


def _ms(value: float) -> str:
    return f"{max(value, 0.0):.2g} ms"
