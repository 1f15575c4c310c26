"""What a comparison shows, in sentences that follow from its numbers and nothing else."""

from offramp.evaluation.comparison import (
    Comparison,
    PairedDifference,
    difference_interval_text,
    kind_name,
)
from offramp.evaluation.intervals import Interval
from offramp.evaluation.rivals import Duel, RivalRow
from offramp.table import scaled_flops
from offramp.task import Measure


def verdict(comparison: Comparison) -> tuple[str, ...]:
    """One sentence per paired difference, per impractical exit and per static rival."""
    measure = comparison.measure
    return (
        *(_difference(item, measure) for item in comparison.differences),
        *_impractical(comparison),
        *(_rival(row, measure) for row in comparison.rivals),
    )


def _difference(item: PairedDifference, measure: Measure) -> str:
    one = f"{kind_name(item.kind)} ({item.branch})"
    other = f"{kind_name(item.baseline_kind)} ({item.baseline})"
    seeds = "1 seed" if len(item.seeds) == 1 else f"{len(item.seeds)} seeds"
    return (
        f"{one} minus {other} at {item.cut}: {_size(item.difference, item.interval, measure)}, "
        f"{seeds}: {_finding(kind_name(item.kind), item.interval, measure)}."
    )


def _rival(row: RivalRow, measure: Measure) -> str:
    unit, ((flops,),) = scaled_flops([row.rival.flops])
    name = f"static rival {row.rival.name} ({flops} {unit})"
    if not row.duels:
        return f"No exit is as cheap as the {name}."
    kinds = [duel.kind for duel in row.duels]
    duels = "; ".join(
        _duel(duel, kind_name(duel.kind) if kinds.count(duel.kind) == 1 else duel.branch, measure)
        for duel in row.duels
    )
    return f"The dearest exits within the cost of the {name}, minus it: {duels}."


def _duel(duel: Duel, name: str, measure: Measure) -> str:
    size = _size(duel.difference, duel.interval, measure)
    return f"{name} at {duel.cut} {size}, {_finding('the exit', duel.interval, measure)}"


def _impractical(comparison: Comparison) -> list[str]:
    rows = [row for row in comparison.rows if not row.practical]
    found = [
        f"{kind_name(row.kind)} ({row.branch}) at {row.cut} is impractical: a cheaper exit is at "
        "least as good."
        for row in rows
    ]
    if not comparison.final.practical:
        found.append("The final layer is impractical: a cheaper exit is at least as good.")
    return found


def _size(difference: float, interval: Interval | None, measure: Measure) -> str:
    unit = " points" if measure.higher_is_better else f" {measure.name}"
    text = f"{measure.difference_text(difference)}{unit}"
    if interval is None:
        return text
    return f"{text} [{difference_interval_text(measure, interval)}]"


def _finding(name: str, interval: Interval | None, measure: Measure) -> str:
    if interval is None:
        return "no interval, so nothing is shown"
    if 0.0 in interval:
        return "no difference shown (the interval includes 0)"
    wins = measure.better(interval.low, 0.0) and measure.better(interval.high, 0.0)
    return f"{name} {'is better' if wins else 'is worse'} (the interval excludes 0)"
