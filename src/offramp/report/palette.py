"""The few colours of all figures: Okabe and Ito's, safe for colour-blind readers."""

from collections.abc import Iterable

INK = "#1b1f24"
MUTED = "#5f6b7a"
GRID = "#d9dee5"
PAGE = "#ffffff"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "^", "s", "P", "v", "h")

VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAGE: "var(--page)",
    **{colour: f"var(--series-{place})" for place, colour in enumerate(SERIES)},
}
"""What a colour becomes inside the page, where the reader's theme decides."""


def styles(series: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each series, in the order met; both repeat after six."""
    different = dict.fromkeys(series)
    return {
        name: (SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate(different)
    }
