"""Verdict: are promises kept as often as they say, and policies issued where they can be?"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from offramp.outputs import ExitOutputs
from offramp.table import Table
from promises.best import best, certifiable, within
from promises.draws import Outcome, Tally
from promises.pool import Pool, oracle_saving

SLACK = 0.99
ISSUED, OF_BEST, ENOUGH = 0.8, 0.7, 5000


@dataclass(frozen=True)
class Attainable:
    """What can be saved on a pool within a drop.

    Attributes:
        family: By the best thresholds there are, known from the whole pool.
        oracle: By the best exit of each sample, were it known which are right.
    """

    family: float
    oracle: float


@dataclass(frozen=True)
class Judgement:
    """A tally against what is claimed of it.

    Attributes:
        allowed: Most draws whose promise may be broken; None where nothing is promised.
        certifiable: What the best policy saves that so many samples should certify; None where
            there is none, or samples are too few for the claim.
    """

    tally: Tally
    allowed: int | None
    certifiable: float | None

    @property
    def kept(self) -> bool:
        """Whether the promise is broken no more often than it says, but for chance."""
        return self.allowed is None or self.tally.broken <= self.allowed

    @property
    def useful(self) -> bool:
        """Whether policies are issued, and save enough, where the family has a good one."""
        if self.certifiable is None:
            return True
        often = self.tally.issued >= ISSUED * self.tally.draws
        return often and self.tally.saved >= OF_BEST * self.certifiable

    def as_json(self) -> dict[str, Any]:
        """One flat record; shares with six digits."""
        tally = asdict(self.tally)
        record = {**tally.pop("asked"), **tally, "allowed": self.allowed}
        record |= {"certifiable": self.certifiable, "kept": self.kept, "useful": self.useful}
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}


@dataclass(frozen=True)
class PoolRecord:
    """Everything that came of one pool.

    Attributes:
        accuracy: Of each exit.
        attainable: By drop.
    """

    name: str
    rows: int
    accuracy: tuple[float, ...]
    attainable: dict[float, Attainable]
    judgements: tuple[Judgement, ...]

    @property
    def holds(self) -> bool:
        """Whether both claims do."""
        return all(each.kept and each.useful for each in self.judgements)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "name": self.name,
            "rows": self.rows,
            "accuracy": self.accuracy,
            "attainable": {str(drop): asdict(each) for drop, each in self.attainable.items()},
            "tallies": [each.as_json() for each in self.judgements],
        }


def most_broken(draws: int, delta: float) -> int:
    """Draws whose promise may be broken: the 99 % quantile were each broken with chance delta."""
    return int(binom.ppf(SLACK, draws, delta))


def recorded(name: str, outputs: Path, tallies: Sequence[Tally]) -> PoolRecord:
    """What the draws from a pool came to, beside what could be had."""
    pool = Pool(name, ExitOutputs.load(outputs))
    attainable = {}
    for drop in sorted({tally.asked.max_drop for tally in tallies}):
        found = best(pool, within(drop))
        attainable[drop] = Attainable(
            found.judged.saved if found else 0.0, oracle_saving(pool, drop)
        )
    accuracy = tuple(pool.outputs.correct.mean(axis=1).tolist())
    return PoolRecord(name, len(pool), accuracy, attainable, tuple(judged(pool, tallies)))


def judged(pool: Pool, tallies: Sequence[Tally]) -> Iterator[Judgement]:
    """Each tally with what is claimed of it; the best policies are searched once."""
    known: dict[tuple[float, float, int], float | None] = {}
    for tally in tallies:
        drop, delta = tally.asked.max_drop, tally.asked.delta
        if delta is None:
            yield Judgement(tally, None, None)
            continue
        saved, samples = None, tested(tally)
        if samples >= ENOUGH and usefulness_claimed(pool, tally):
            key = drop, delta, samples
            if key not in known:
                found = best(pool, certifiable(drop, delta, samples))
                known[key] = found.judged.saved if found else None
            saved = known[key]
        yield Judgement(tally, most_broken(tally.draws, delta), saved)


def usefulness_claimed(pool: Pool, tally: Tally) -> bool:
    """Whether usefulness is claimed: of offramp's methods, where rows are independent."""
    return tally.asked.method in ("ltt", "ucb") and pool.clusters is None


def tested(tally: Tally) -> int:
    """Samples that tested thresholds; all rows where no policy was issued to say it."""
    return tally.samples if tally.issued else tally.rows


@dataclass(frozen=True)
class Pair:
    """offramp's policies and a rival's on the same draws of one pool, where issued or not.

    Attributes:
        issued: Draws with a policy, ours and the rival's.
        saved: Mean over all draws, 0 where no policy was issued.
        gap: Mean of ours minus the rival's saving, draw by draw, and its 95 % half width.
    """

    pool: str
    draws: int
    issued: tuple[int, int]
    saved: tuple[float, float]
    gap: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether ours issues at least as often and saves at least as much, but for chance."""
        return self.issued[0] >= self.issued[1] and self.gap[0] + self.gap[1] >= 0


def paired(pool: str, ours: Sequence[Outcome], rival: Sequence[Outcome]) -> Pair:
    """Outcomes of the same draws, in the same order, compared."""
    saved = np.array([[each.saved if each.issued else 0.0 for each in o] for o in (ours, rival)])
    gaps = saved[0] - saved[1]
    half = 1.96 * float(gaps.std(ddof=1)) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.inf
    return Pair(
        pool,
        len(ours),
        (sum(each.issued for each in ours), sum(each.issued for each in rival)),
        (float(saved[0].mean()), float(saved[1].mean())),
        (float(gaps.mean()), float(half)),
    )


def pairs_text(pairs: Sequence[Pair], what: str) -> str:
    """One row per pool."""
    head = [what, "draws", "issued", "rival", "saved %", "rival", "gap", "+-", "at least as good"]
    rows = [
        [
            each.pool,
            str(each.draws),
            *map(str, each.issued),
            *(f"{100 * value:.1f}" for value in (*each.saved, *each.gap)),
            "yes" if each.holds else "no",
        ]
        for each in pairs
    ]
    return str(Table(head, rows))


def as_text(records: Sequence[PoolRecord]) -> str:
    """Tables for the terminal: each pool, all together, and what does not hold."""
    return "\n\n".join([*map(_pool_text, records), _together(records), *_failures(records)])


def _together(records: Sequence[PoolRecord]) -> str:
    every = [each.tally for record in records for each in record.judgements]
    head = ["all pools", "cases", "broken %", "most", "none %", "saved %", "ms"]
    rows = []
    for method, delta in dict.fromkeys((tally.asked.method, tally.asked.delta) for tally in every):
        own = [
            tally for tally in every if (tally.asked.method, tally.asked.delta) == (method, delta)
        ]
        broken = [100 * tally.broken / tally.draws for tally in own]
        rows.append(
            [
                method if delta is None else f"{method}, delta {100 * delta:g} %",
                str(len(own)),
                f"{np.mean(broken):.1f}",
                f"{max(broken):.1f}",
                f"{100 * np.mean([1 - tally.issued / tally.draws for tally in own]):.1f}",
                f"{100 * np.mean([tally.saved for tally in own]):.1f}",
                f"{1000 * np.mean([tally.seconds for tally in own]):.1f}",
            ]
        )
    return str(Table(head, rows))


def _pool_text(record: PoolRecord) -> str:
    head = ["", "rows", "drop %", "delta %", "draws", "none", "broken %", "allowed %"]
    head += ["drop", "saved %", "of certifiable", "of family", "of oracle", "ms"]
    rows = [_row(each, record.attainable[each.tally.asked.max_drop]) for each in record.judgements]
    right = ", ".join(f"{100 * value:.1f}" for value in record.accuracy)
    rows.sort(key=lambda row: (int(row[1]), float(row[2])))
    return f"{record.name}: {record.rows:,} rows, exits right in {right} %\n{Table(head, rows)}"


def _row(each: Judgement, attainable: Attainable) -> list[str]:
    tally = each.tally
    delta, draws = tally.asked.delta, tally.draws
    return [
        tally.asked.method,
        str(tally.rows),
        f"{100 * tally.asked.max_drop:g}",
        "" if delta is None else f"{100 * delta:g}",
        str(draws),
        str(draws - tally.issued),
        f"{100 * tally.broken / draws:.1f}",
        "" if each.allowed is None else f"{100 * each.allowed / draws:.1f}",
        f"{100 * tally.drop:.2f}",
        f"{100 * tally.saved:.1f}",
        _share(tally.saved, each.certifiable),
        _share(tally.saved, attainable.family),
        _share(tally.saved, attainable.oracle),
        f"{1000 * tally.seconds:.1f}",
    ]


def _share(saved: float, most: float | None) -> str:
    return f"{100 * saved / most:.0f} % of {100 * most:.1f}" if most else ""


def _failures(records: Sequence[PoolRecord]) -> Iterator[str]:
    for record in records:
        for each in record.judgements:
            for held, what in ((each.kept, "broken too often"), (each.useful, "too timid")):
                if not held:
                    yield f"{record.name}, {each.tally.rows} rows, {each.tally.asked}: {what}"
