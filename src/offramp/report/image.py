"""Figures and pictures as bytes: the same input gives the same bytes, with no date inside."""

import base64
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from offramp.report.palette import GRID, INK, MUTED, VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def inline_svg(figure: "Figure", name: str, alt: str) -> str:
    """The figure as an `<svg>` element with this id, in the colours of the page."""
    text = svg_bytes(figure, transparent=True).decode()
    box = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index("<defs>") :]
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, variable)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)  # ids are the page's
    body = body.replace("*{", f"#{name} *{{", 1)
    size = box.group() if box else ""
    return f'<svg id="{name}" role="img" aria-label="{html.escape(alt)}" {size}>{body}'


def captioned(content: str, caption: str) -> str:
    """A figure of the page with the words below it."""
    return f"<figure>\n{content}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>"


def picture_uri(image: NDArray[np.uint8]) -> str:
    """A picture as a data URI of a PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
