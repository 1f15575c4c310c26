"""The quality of exits as text tables."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from offramp.evaluation.quality.mix import MixRow, PolicyQuality
from offramp.table import scaled_flops, text_table
from offramp.task import Measure

if TYPE_CHECKING:
    from offramp.evaluation.quality.quality import Quality

WORST = 10
Table = tuple[str, list[str], list[list[str]]]
"""A title, the heads and the rows; the first column is text."""


def quality_text(quality: "Quality") -> str:
    """All tables with their titles, for a terminal."""
    parts = [f"{title}\n{text_table(head, rows)}" for title, head, rows in quality_tables(quality)]
    return "\n\n".join([*parts, oracle_sentence(quality)])


def quality_tables(quality: "Quality") -> Iterator[Table]:
    """Exits, agreement, budgets, policies and, for each policy, whom it costs most."""
    yield exit_table(quality)
    yield agreement_table(quality)
    yield budget_table(quality)
    if quality.policies:
        yield policy_table(quality)
    for policy in quality.policies:
        if policy.parts:
            yield part_table(quality, policy)


def exit_table(quality: "Quality") -> Table:
    """How good, dear and well calibrated each exit is."""
    unit, costs = cost_texts(quality.unit, [exit.cost for exit in quality.exits])
    classes = quality.exits[0].reliability is not None
    head = ["exit", _head(quality.measure), unit]
    head += ["ECE %", "debiased"] if classes else []
    head += ["temperature", "ECE after %", "debiased"] if quality.fitted_on else []
    head += [f"AUROC {score}" for score in quality.exits[0].auroc]
    rows = []
    for exit, cost in zip(quality.exits, costs, strict=True):
        row = [exit.name, quality.measure.text(exit.value), cost]
        for found in (exit.reliability, exit.reliability_scaled):
            if found is not None and found is exit.reliability_scaled:
                row.append(f"{exit.temperature:.2f}")
            if found is not None:
                row += [f"{100 * found.ece:.1f}", f"{100 * found.debiased_ece:.1f}"]
        row += ["" if area is None else f"{area:.3f}" for area in exit.auroc.values()]
        rows.append(row)
    fitted = f", temperatures from {quality.fitted_on} others" if quality.fitted_on else ""
    return f"Exits ({quality.samples} samples{fitted})", head, rows


def agreement_table(quality: "Quality") -> Table:
    """How often, or how closely, exits agree."""
    names = [exit.name for exit in quality.exits]
    share = quality.measure.higher_is_better
    title = "Agreement, % of samples" if share else "Mean absolute difference"
    rows = [
        [name, *(quality.measure.text(value) for value in row)]
        for name, row in zip(names, quality.agreement.tolist(), strict=True)
    ]
    return title, ["exit", *names], rows


def budget_table(quality: "Quality") -> Table:
    """What shares of the backbone's cost buy."""
    head = ["cost %", "best exit", _head(quality.measure)]
    head += ["best policy", _head(quality.measure)] if quality.policies else []
    rows = []
    for point in quality.budgets:
        row = [f"{100 * point.share:.0f}", point.exit or "none", _value(quality, point.value)]
        if quality.policies:
            row += [point.policy or "none", _value(quality, point.policy_value)]
        rows.append([*row, _value(quality, point.oracle)])
    return "Within a share of the backbone's cost, as seen here", [*head, "oracle"], rows


def policy_table(quality: "Quality") -> Table:
    """What policies cost and lose, and which exits answer."""
    head = ["policy", *(f"{exit.name} %" for exit in quality.exits), _head(quality.measure)]
    head += [drop_head(quality.measure), "95 % interval", "saved %", "above oracle %"]
    rows = [
        [
            policy.name,
            *(f"{100 * share:.1f}" for share in policy.overall.mix),
            quality.measure.text(policy.overall.value),
            *drop_texts(quality.measure, policy.overall),
            f"{100 * policy.saved:.1f}",
            f"{100 * policy.oracle_gap:.1f}",
        ]
        for policy in quality.policies
    ]
    return "Policies: which exit answers, and what that costs", head, rows


def part_table(quality: "Quality", policy: PolicyQuality) -> Table:
    """The classes and groups that a policy costs most."""
    head = ["part", "samples", *(f"{exit.name} %" for exit in quality.exits)]
    head += [_head(quality.measure), "final", drop_head(quality.measure), "95 % interval"]
    rows = [
        [
            f"{row.kind} {row.name}",
            str(row.samples),
            *(f"{100 * share:.1f}" for share in row.mix),
            quality.measure.text(row.value),
            quality.measure.text(row.final),
            *drop_texts(quality.measure, row),
        ]
        for row in policy.parts[:WORST]
    ]
    more = len(policy.parts) - WORST
    rest = f", {WORST} of {len(policy.parts)}" if more > 0 else ""
    return f"{policy.name}: the largest drops first{rest}", head, rows


def oracle_sentence(quality: "Quality") -> str:
    """What a clairvoyant would reach."""
    oracle, measure, final = quality.oracle, quality.measure, quality.exits[-1].value
    unit = f" {measure.unit}" if measure.unit else ""
    return (
        f"The oracle, the best exit for each sample, needs {100 * oracle.cost_share_for(final):.1f}"
        f" % of the backbone's cost for the final exit's {measure.text(final)}{unit}, and with "
        f"{100 * oracle.cost_share[-1]:.1f} % reaches {measure.text(oracle.value[-1])}{unit}."
    )


def drop_head(measure: Measure) -> str:
    """What a drop is called."""
    return "drop, points" if measure.higher_is_better else f"{measure.name} rise"


def drop_texts(measure: Measure, row: MixRow) -> list[str]:
    """A drop and its interval."""
    low, high = (measure.difference_text(end) for end in (row.interval.low, row.interval.high))
    return [measure.difference_text(row.drop), f"{low} to {high}"]


def cost_texts(unit: str, costs: Sequence[float]) -> tuple[str, list[str]]:
    """The unit that costs print in, and the costs."""
    if unit == "ms":
        return "ms", [f"{cost:.2f}" for cost in costs]
    name, (texts,) = scaled_flops(costs)
    return name, texts


def _head(measure: Measure) -> str:
    return f"{measure.name} {measure.unit}".strip()


def _value(quality: "Quality", value: float | None) -> str:
    return "" if value is None else quality.measure.text(value)
