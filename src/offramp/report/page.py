"""The report: one HTML file that needs nothing else, figures first."""

import html
from importlib.resources import files
from pathlib import Path
from string import Template

from offramp.evaluation import Comparison, ExitMix, verdict
from offramp.evaluation.comparison import kind_name
from offramp.evaluation.exit_mix import NO_PROMISE
from offramp.report.figures import plot_differences, plot_tradeoff, plot_training
from offramp.report.image import captioned, inline_svg, picture_uri, png_bytes, svg_bytes
from offramp.report.inputs import Picture, ReportInputs
from offramp.report.quality_section import quality_section
from offramp.report.tables import (
    branch_table,
    difference_table,
    exit_table,
    fact_table,
    mix_table,
    rival_table,
)
from offramp.storage.atomic import make_folder, write_bytes


def write_report(folder: Path | str, inputs: ReportInputs) -> Path:
    """Write `report.html`, `tradeoff.png` and `tradeoff.svg`; returns the page's path.

    The same inputs give the same bytes.

    Raises:
        BundleError: The folder or a file in it cannot be written.
    """
    place = make_folder(Path(folder))
    figure = plot_tradeoff(inputs.comparison)
    write_bytes(place / "tradeoff.png", png_bytes(figure))
    write_bytes(place / "tradeoff.svg", svg_bytes(figure))
    write_bytes(place / "report.html", report_page(inputs).encode())
    return place / "report.html"


def report_page(inputs: ReportInputs) -> str:
    """The whole page as text."""
    template = Template(files("offramp.report").joinpath("page.html").read_text("utf-8"))
    sections = [
        _figures(inputs.comparison),
        _tables(inputs.comparison),
        _verdict(inputs.comparison),
        _saved_model(inputs),
        quality_section(inputs.quality) if inputs.quality is not None else "",
        _pictures(inputs),
        _training(inputs),
        _facts(inputs),
    ]
    return template.substitute(
        title=html.escape(inputs.title),
        lead=html.escape(_lead(inputs)),
        sections="\n".join(section for section in sections if section),
    )


def _lead(inputs: ReportInputs) -> str:
    comparison = inputs.comparison
    cuts = len({row.cut for row in comparison.rows})
    seeds = len({seed for row in comparison.rows for seed in row.seeds})
    kinds = " and ".join(dict.fromkeys(kind_name(row.kind) for row in comparison.rows))
    return (
        f"{kinds} branches at {_count(cuts, 'cut')} of a frozen backbone, {_count(seeds, 'seed')}, "
        f"{comparison.samples} test samples. The final layer's {comparison.measure.name} is "
        f"{comparison.measure.text(comparison.final.value)} {comparison.measure.unit}".strip()
        + "."
    )


def _figures(comparison: Comparison) -> str:
    name = comparison.measure.name
    parts = [
        captioned(
            inline_svg(plot_tradeoff(comparison), "tradeoff", _tradeoff_words(comparison)),
            f"{name.capitalize()} against FLOPs per sample. Bars are 95 % intervals over test "
            "samples and seeds. The table below has every number.",
        )
    ]
    if comparison.differences:
        figure = plot_differences(comparison)
        alt = "Paired differences with 95 % intervals; the verdict below states each in words."
        caption = "Paired differences at each cut, same samples and same seeds, 95 % intervals."
        parts.append(captioned(inline_svg(figure, "differences", alt), caption))
    figures = "\n".join(parts)
    return f'<div class="figures">\n{figures}\n</div>'


def _tradeoff_words(comparison: Comparison) -> str:
    measure = comparison.measure
    points = [
        f"{row.branch} at {row.cut} {measure.text(row.value)} at {row.flops / 1e6:.0f} MFLOPs"
        for row in (*comparison.rows, comparison.final)
    ]
    return f"{measure.name} against FLOPs: {'; '.join(points)}."


def _tables(comparison: Comparison) -> str:
    parts = ["<h2>Every exit</h2>", branch_table(comparison)]
    if len({item.baseline for item in comparison.differences}) > 1:
        parts.append(difference_table(comparison))
    if comparison.rivals:
        parts.append(rival_table(comparison))
    return "\n".join([*parts, _list(comparison.notes, "quiet")])


def _verdict(comparison: Comparison) -> str:
    sentences = verdict(comparison)
    return f"<h2>What this shows</h2>\n{_list(sentences)}" if sentences else ""


def _saved_model(inputs: ReportInputs) -> str:
    parts = [
        "<h2>The saved model</h2>",
        "<p>Per cut it takes the branch that was best on validation, never by test.</p>",
        exit_table(inputs.exits),
    ]
    if inputs.mix is not None:
        parts += _mix(inputs.mix)
    return "\n".join(parts)


def _mix(mix: ExitMix) -> list[str]:
    return [
        "<h2>Which exit answers</h2>",
        f"<p>{html.escape(mix.summary())} <strong>{html.escape(NO_PROMISE)}</strong></p>",
        mix_table(mix),
    ]


def _pictures(inputs: ReportInputs) -> str:
    if not inputs.pictures:
        return ""
    items = "\n".join(map(_picture, inputs.pictures))
    return f'<h2>A few test pictures</h2>\n<ul class="pictures">\n{items}\n</ul>'


def _picture(picture: Picture) -> str:
    answer, truth = html.escape(picture.answer), html.escape(picture.truth)
    right = "right" if picture.answer == picture.truth else f"wrong, it is {truth}"
    share = f"{100 * abs(picture.saved):.0f} %"
    saved = f"{share} of FLOPs saved" if picture.saved >= 0 else f"{share} more FLOPs"
    return (
        f'<li><img src="{picture_uri(picture.image)}" alt="test picture of class {truth}">'
        f"<strong>{answer}</strong> {right}<br>{html.escape(picture.exit)}, "
        f"{100 * picture.confidence:.0f} % sure<br>{saved}</li>"
    )


def _training(inputs: ReportInputs) -> str:
    if not inputs.curves:
        return ""
    figure = plot_training(inputs.curves, inputs.comparison)
    svg = inline_svg(figure, "training", "Training and validation loss per epoch at each cut.")
    caption = "Loss per epoch at each cut; a dot marks the epoch whose weights were kept."
    return f"<h2>How the branches trained</h2>\n{captioned(svg, caption)}"


def _facts(inputs: ReportInputs) -> str:
    parts = ["<h2>Facts</h2>", fact_table(inputs.facts)] if inputs.facts else []
    if inputs.plan:
        plan = html.escape(inputs.plan)
        parts.append(f"<details><summary>The plan</summary><pre>{plan}</pre></details>")
    return "\n".join(parts)


def _list(items: tuple[str, ...], style: str = "") -> str:
    lines = "\n".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f'<ul class="{style}">\n{lines}\n</ul>'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
