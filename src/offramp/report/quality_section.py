"""The report's section on the quality of exits: three kinds of figures, then every number."""

import html

from offramp.evaluation.quality import PolicyQuality, Quality
from offramp.evaluation.quality.text import oracle_sentence, quality_tables
from offramp.report.image import captioned, inline_svg
from offramp.report.quality_figures import SHOWN, plot_mix, plot_oracle, plot_reliability
from offramp.report.tables import html_table


def quality_section(quality: Quality) -> str:
    """The whole section."""
    figures = [_oracle(quality)]
    if quality.exits[0].reliability is not None:
        figures.append(_reliability(quality))
    figures += [_mix(quality, policy, place) for place, policy in enumerate(quality.policies)]
    rules = [f"<li>{html.escape(f'{p.name}: {p.rule}')}</li>" for p in quality.policies]
    return "\n".join(
        [
            "<h2>Quality of exits</h2>",
            f"<p>{html.escape(oracle_sentence(quality))}</p>",
            '<div class="figures">',
            *figures,
            "</div>",
            *(['<ul class="quiet">', *rules, "</ul>"] if rules else []),
            *(html_table(*table) for table in quality_tables(quality)),
        ]
    )


def _oracle(quality: Quality) -> str:
    words = "; ".join(
        f"{policy.name} {quality.measure.text(policy.overall.value)} at "
        f"{100 * policy.cost_share:.0f} % of the cost"
        for policy in quality.policies
    )
    alt = f"{oracle_sentence(quality)} Policies: {words or 'none'}."
    caption = (
        f"Exits, policies and the oracle on {quality.samples} test samples. Exits and the oracle "
        "pay for their own path, policies for the branches passed on the way as well."
    )
    return captioned(inline_svg(plot_oracle(quality), "oracle", alt), caption)


def _reliability(quality: Quality) -> str:
    errors = "; ".join(f"{exit.name} {100 * (exit.ece or 0):.1f} %" for exit in quality.exits)
    alt = f"Accuracy against confidence at each exit. Expected calibration error: {errors}."
    fitted = (
        f" Temperatures T were fitted on {quality.fitted_on} other samples."
        if quality.fitted_on
        else ""
    )
    caption = f"How often exits are right when they are so sure; bins hold equal shares.{fitted}"
    return captioned(inline_svg(plot_reliability(quality), "reliability", alt), caption)


def _mix(quality: Quality, policy: PolicyQuality, place: int) -> str:
    alt = f"Share of samples that each exit answers under {policy.name}; the table has the numbers."
    few = f" The {SHOWN} largest of {len(policy.parts)}." if len(policy.parts) > SHOWN else ""
    caption = f"Which exit answers under {policy.name}; classes that lose most come first.{few}"
    return captioned(inline_svg(plot_mix(quality, policy), f"mix-{place}", alt), caption)
