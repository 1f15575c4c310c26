"""The report: one HTML file that needs nothing else, figures first."""

import html
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from string import Template

from offramp.evaluation import Absence, Comparison, Tradeoff, verdict
from offramp.evaluation.policy_quality import PolicyQuality
from offramp.evaluation.quality import Quality
from offramp.evaluation.rows import kind_name
from offramp.report.elements import captioned, fact_table, html_list, html_table, picture_uri
from offramp.report.figures import plot_differences, plot_tradeoff, plot_training
from offramp.report.inputs import Picture, ReportInputs
from offramp.report.quality_figures import SHOWN, plot_mix, plot_oracle, plot_reliability
from offramp.report.style import png_bytes, svg_bytes
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
        _warnings(inputs),
        _figures(inputs.comparison),
        _tables(inputs.comparison),
        _verdict(inputs.comparison),
        _saved_model(inputs.exits),
        _absence(inputs.absence) if inputs.absence is not None else "",
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
        f"{comparison.samples} test samples. The final layer's {comparison.measure.noun} is "
        f"{comparison.measure.amount(comparison.final.value)}."
    )


def _warnings(inputs: ReportInputs) -> str:
    return f"<h2>Check this first</h2>\n{html_list(inputs.warnings)}" if inputs.warnings else ""


def _figures(comparison: Comparison) -> str:
    name = comparison.measure.noun
    parts = [
        captioned(
            plot_tradeoff(comparison),
            "tradeoff",
            _tradeoff_words(comparison),
            f"{name[0].upper()}{name[1:]} against FLOPs per sample. Bars are 95 % intervals over "
            "test samples and seeds. The table below has every number.",
        )
    ]
    if comparison.differences:
        alt = "Paired differences with 95 % intervals; the verdict below states each in words."
        caption = "Paired differences at each cut, same samples and same seeds, 95 % intervals."
        parts.append(captioned(plot_differences(comparison), "differences", alt, caption))
    figures = "\n".join(parts)
    return f'<div class="figures">\n{figures}\n</div>'


def _tradeoff_words(comparison: Comparison) -> str:
    measure = comparison.measure
    points = [
        f"{row.branch} at {row.cut} {measure.text(row.value)} at {row.flops / 1e6:.0f} MFLOPs"
        for row in (*comparison.rows, comparison.final)
    ]
    return f"{measure.noun} against FLOPs: {'; '.join(points)}."


def _tables(comparison: Comparison) -> str:
    tables = map(html_table, comparison.tables())
    return "\n".join(["<h2>Every exit</h2>", *tables, html_list(comparison.notes, "quiet")])


def _verdict(comparison: Comparison) -> str:
    sentences = verdict(comparison)
    return f"<h2>What this shows</h2>\n{html_list(sentences)}" if sentences else ""


def _saved_model(exits: Tradeoff) -> str:
    table = replace(exits.table(), caption=f"One branch per cut; {exits.method}")
    return "\n".join(
        [
            "<h2>The saved model</h2>",
            "<p>At each cut, the model uses the branch that did best on validation, not on "
            "test.</p>",
            html_table(table),
        ]
    )


def _absence(found: Absence) -> str:
    return "\n".join(
        [
            "<h2>Where an input is absent</h2>",
            "<p>An exit refuses to answer if it needs the absent input and has not learned to do "
            "without it.</p>",
            html_table(found.table()),
        ]
    )


def quality_section(quality: Quality) -> str:
    """The section on the quality of exits: figures first, then every number."""
    figures = [_oracle(quality)]
    if quality.exits[0].before:
        figures.append(_reliability(quality))
    figures += [_mix(quality, policy, place) for place, policy in enumerate(quality.policies)]
    return "\n".join(
        [
            "<h2>Quality of exits</h2>",
            f"<p>{html.escape(quality.oracle_sentence())}</p>",
            '<div class="figures">',
            *figures,
            "</div>",
            html_list([f"{p.name}: {p.rule}" for p in quality.policies], "quiet"),
            *(html_table(table) for table in quality.tables()),
        ]
    )


def _oracle(quality: Quality) -> str:
    words = "; ".join(
        f"{policy.name} {quality.measure.text(policy.overall.value)} at "
        f"{100 * policy.cost_share:.0f} % of the cost"
        for policy in quality.policies
    )
    alt = f"{quality.oracle_sentence()} Policies: {words or 'none'}."
    caption = (
        f"Exits, policies and the oracle on {quality.samples} test samples. The cost of an "
        "exit, as of an answer of the oracle, is that of the backbone up to it and of its branch; "
        "a policy also pays for the branches passed on the way."
    )
    return captioned(plot_oracle(quality), "oracle", alt, caption)


def _reliability(quality: Quality) -> str:
    errors = "; ".join(
        f"{exit.name} {100 * exit.before.ece:.1f} %" for exit in quality.exits if exit.before
    )
    alt = f"Accuracy against confidence at each exit. Expected calibration error: {errors}."
    others = quality.temperatures_fitted_on
    fitted = f" Temperatures T were fitted on {others} other samples." if others else ""
    caption = f"Accuracy against confidence; each bin holds an equal number of samples.{fitted}"
    return captioned(plot_reliability(quality), "reliability", alt, caption)


def _mix(quality: Quality, policy: PolicyQuality, place: int) -> str:
    alt = f"Share of samples that each exit answers under {policy.name}; the table has the numbers."
    few = f" The {SHOWN} largest of {len(policy.parts)}." if len(policy.parts) > SHOWN else ""
    caption = (
        f"Which exit answers under {policy.name}; classes and groups that fall furthest behind the "
        f"final exit come first.{few}"
    )
    return captioned(plot_mix(quality, policy), f"mix-{place}", alt, caption)


def _pictures(inputs: ReportInputs) -> str:
    if not inputs.pictures:
        return ""
    items = "\n".join(map(_picture, inputs.pictures))
    return f'<h2>A few test pictures</h2>\n<ul class="pictures">\n{items}\n</ul>'


def _picture(picture: Picture) -> str:
    answer, truth = picture.answer, html.escape(picture.truth)
    right = "right" if picture.is_right else f"wrong, it is {truth}"
    share = f"{100 * abs(answer.flops_saved):.0f} %"
    saved = f"{share} of FLOPs saved" if answer.flops_saved >= 0 else f"{share} more FLOPs"
    return (
        f'<li><img src="{picture_uri(picture.image)}" alt="test picture of class {truth}">'
        f"<strong>{html.escape(answer.text)}</strong> {right}<br>{html.escape(answer.exit)}, "
        f"{100 * picture.confidence:.0f} % sure<br>{saved}</li>"
    )


def _training(inputs: ReportInputs) -> str:
    if not inputs.curves:
        return ""
    figure = plot_training(inputs.curves, inputs.comparison)
    alt = "Training and validation loss per epoch at each cut."
    caption = "Loss per epoch at each cut; a dot marks the epoch whose weights were kept."
    return f"<h2>How the branches trained</h2>\n{captioned(figure, 'training', alt, caption)}"


def _facts(inputs: ReportInputs) -> str:
    parts = ["<h2>Facts</h2>", fact_table(inputs.facts)] if inputs.facts else []
    if inputs.plan:
        plan = html.escape(inputs.plan)
        parts.append(f"<details><summary>The plan</summary><pre>{plan}</pre></details>")
    return "\n".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
