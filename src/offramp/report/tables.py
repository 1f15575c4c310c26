"""Tables as HTML: escaped, with heads that screen readers know, in a box that scrolls."""

import html
from collections.abc import Mapping, Sequence

from offramp.evaluation import BranchRow, Comparison, ExitMix, Tradeoff
from offramp.evaluation.comparison import (
    difference_head,
    difference_interval_text,
    mean_text,
    measure_head,
)
from offramp.evaluation.tradeoff import interval_text
from offramp.table import scaled_flops


def html_table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> str:
    """A table from plain texts; the first column heads its rows, the first `left` read as text."""
    heads = "".join(_cell("th", text, place < left, "col") for place, text in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(
            _cell("td" if place else "th", text, place < left, "" if place else "row")
            for place, text in enumerate(row)
        )
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<figure class="tabled"><figcaption>{html.escape(caption)}</figcaption>'
        f'<div class="table" role="region" tabindex="0" aria-label="{html.escape(caption)}">'
        f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div></figure>"
    )


def branch_table(comparison: Comparison) -> str:
    """Every branch over its seeds, then the final layer."""
    rows = (*comparison.rows, comparison.final)
    unit, (own, passed) = scaled_flops(
        [row.flops for row in rows], [row.flops_with_passed or row.flops for row in rows]
    )
    head = ["exit", "branch", f"{measure_head(comparison.measure)}, mean ± std"]
    head += ["95 % interval", "minus baseline, 95 % interval", "parameters", unit]
    head += ["with branches passed", "acceleration", "ms", ""]
    lines = [
        [
            row.cut,
            row.branch,
            mean_text(comparison.measure, row),
            interval_text(comparison.measure, row.interval),
            _difference(comparison, row),
            f"{row.params:,}" if row.seeds else "",
            own[place],
            passed[place] if row.flops_with_passed is not None else "",
            f"{row.acceleration:.2f}x",
            _ms(row.ms),
            "" if row.practical else "impractical",
        ]
        for place, row in enumerate(rows)
    ]
    return html_table("Every branch, mean over seeds, on the test samples", head, lines, left=2)


def difference_table(comparison: Comparison) -> str:
    """Each paired difference with its interval."""
    measure = comparison.measure
    head = ["exit", "branch", "minus", difference_head(measure), "95 % interval", "seeds"]
    lines = [
        [
            item.cut,
            item.branch,
            item.baseline,
            measure.difference_text(item.difference),
            difference_interval_text(measure, item.interval),
            str(len(item.seeds)),
        ]
        for item in comparison.differences
    ]
    return html_table("Paired differences: same samples, same seeds", head, lines, left=3)


def rival_table(comparison: Comparison) -> str:
    """The backbone without exits on smaller inputs."""
    unit, (flops,) = scaled_flops([row.rival.flops for row in comparison.rivals])
    lines = [
        [
            row.rival.name,
            row.rival.note,
            comparison.measure.text(row.rival.value),
            interval_text(comparison.measure, row.interval) if row.interval else "",
            own,
        ]
        for row, own in zip(comparison.rivals, flops, strict=True)
    ]
    head = ["rival", "how it was made", measure_head(comparison.measure), "95 % interval", unit]
    return html_table("Static rivals: no exits, less compute for every sample", head, lines, left=2)


def exit_table(exits: Tradeoff) -> str:
    """The exits of the saved model."""
    unit, (own, passed) = scaled_flops(
        [point.flops for point in exits], [point.flops_with_passed for point in exits]
    )
    head = ["exit", measure_head(exits.measure), "95 % interval", unit, "with branches passed"]
    head += ["acceleration", "ms", ""]
    lines = [
        [
            point.name,
            exits.measure.text(point.value),
            interval_text(exits.measure, point.interval),
            own[point.exit],
            passed[point.exit],
            f"{point.acceleration:.2f}x",
            _ms(point.ms),
            "" if point.practical else "impractical",
        ]
        for point in exits
    ]
    caption = f"The saved model, one branch per cut; {exits.samples} samples, {exits.method}"
    return html_table(caption, head, lines)


def mix_table(mix: ExitMix) -> str:
    """What each exit answers at the fixed threshold."""
    lines = [
        [
            item.name,
            f"{100 * item.share:.1f}",
            "" if item.accuracy is None else f"{100 * item.accuracy:.1f}",
        ]
        for item in mix.exits
    ]
    head = ["exit", "answers, % of samples", "right, % of these"]
    return html_table(f"An exit fires at maximum softmax >= {mix.threshold:g}", head, lines)


def fact_table(facts: Mapping[str, str]) -> str:
    """Names and texts, long ones wrapped."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(text)}</td></tr>\n'
        for name, text in facts.items()
    )
    return f'<div class="table facts"><table><tbody>{rows}</tbody></table></div>'


def _cell(tag: str, text: str, as_text: bool, scope: str) -> str:
    scoped = f' scope="{scope}"' if scope else ""
    style = ' class="text"' if as_text else ""
    return f"<{tag}{scoped}{style}>{html.escape(text)}</{tag}>"


def _difference(comparison: Comparison, row: BranchRow) -> str:
    """The row's differences; where there are several baselines each is named."""
    found = [i for i in comparison.differences if (i.cut, i.branch) == (row.cut, row.branch)]
    measure = comparison.measure
    return "; ".join(
        f"{measure.difference_text(item.difference)} "
        f"[{difference_interval_text(measure, item.interval)}]"
        + (f" against {item.baseline}" if len(found) > 1 else "")
        for item in found
    )


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
