"""How figures look, and figures as bytes: the same figure gives the same bytes, without a date."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 4.8  # inches; with 9 point letters still readable on a phone

# Okabe and Ito's colours, safe for colour-blind readers.
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

_STYLE = {
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "offramp",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's defaults with ours on top, whatever the user has set; restored at the end."""
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


@contextmanager
def canvas(height: float) -> Iterator["Figure"]:
    """A figure of this size in inches to draw on in this style."""
    from matplotlib.figure import Figure

    with house_style():
        yield Figure(figsize=(_WIDTH, height), layout="constrained")


def say(
    axes: "Axes", text: str, point: tuple[float, float], offset: tuple[int, int], **align: Any
) -> None:
    """Write near a point, on a halo that keeps lines off the letters."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground=PAGE)]
    axes.annotate(
        text, point, offset, textcoords="offset points", fontsize=8, path_effects=halo, **align
    )


def png_bytes(figure: "Figure") -> bytes:
    """The figure at 200 dots per inch on white."""
    file = io.BytesIO()
    with house_style():
        figure.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


def svg_bytes(figure: "Figure", *, transparent: bool = False) -> bytes:
    """The figure as SVG, letters as outlines."""
    file = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with house_style():
        figure.savefig(file, format="svg", metadata=nothing, transparent=transparent)
    return file.getvalue()


def styles(series: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each series, in the order met; both repeat after six."""
    different = dict.fromkeys(series)
    return {
        name: (SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate(different)
    }
