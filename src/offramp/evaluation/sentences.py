"""Sentences that summarise the numbers of a comparison."""

from collections.abc import Iterator

from offramp.evaluation.comparison import Comparison
from offramp.evaluation.intervals import Interval
from offramp.evaluation.rows import RivalRow, failure_texts, kind_name
from offramp.table import scaled_flops
from offramp.task import Measure


def verdict(comparison: Comparison) -> tuple[str, ...]:
    """Summarise what the intervals show.

    One sentence per paired difference, impractical exit, static rival and failed trial.
    """
    return (
        *_differences(comparison),
        *_impractical(comparison),
        *(_rival(row, comparison.measure) for row in comparison.rivals),
        *(
            f"{kind_name(row.kind)} ({row.branch}) at {row.cut} {text}."
            for row in comparison.by_cut()
            for text in failure_texts(row.failed)
        ),
    )


def _differences(comparison: Comparison) -> Iterator[str]:
    for item in comparison.differences:
        name, other = kind_name(item.kind), kind_name(item.baseline_kind)
        size = _size(item.difference, item.interval, comparison.measure)
        seeds = "1 seed" if len(item.seeds) == 1 else f"{len(item.seeds)} seeds"
        yield (
            f"{name} ({item.branch}) minus {other} ({item.baseline}) at {item.cut}: {size}, "
            f"{seeds}: {_finding(name, item.interval, comparison.measure)}."
        )


def _impractical(comparison: Comparison) -> Iterator[str]:
    for row in (*comparison.rows, comparison.final):
        if not row.practical:
            name = f"{kind_name(row.kind)} ({row.branch}) at {row.cut}"
            name = "The final layer" if row is comparison.final else name
            yield f"{name} is impractical: a cheaper exit is at least as good."


def _rival(row: RivalRow, measure: Measure) -> str:
    unit, ((flops,),) = scaled_flops([row.rival.flops])
    name = f"static rival {row.rival.name} ({flops} {unit})"
    if not row.differences:
        return f"No exit is as cheap as the {name}."
    kinds = [item.kind for item in row.differences]
    found = "; ".join(
        f"{kind_name(item.kind) if kinds.count(item.kind) == 1 else item.branch} at {item.cut} "
        f"{_size(item.difference, item.interval, measure)}, "
        f"{_finding('the exit', item.interval, measure)}"
        for item in row.differences
    )
    return f"The most expensive exits that cost no more than the {name}, compared with it: {found}."


def _size(difference: float, interval: Interval | None, measure: Measure) -> str:
    text = f"{measure.difference_text(difference)} {measure.difference_head}"
    return text if interval is None else f"{text} [{interval.difference_text(measure)}]"


def _finding(name: str, interval: Interval | None, measure: Measure) -> str:
    if interval is None:
        return "no interval, so inconclusive"
    if 0.0 in interval:
        return "no difference shown (the interval includes 0)"
    better = measure.better(interval.low, 0.0)
    return f"{name} {'is better' if better else 'is worse'} (the interval excludes 0)"
