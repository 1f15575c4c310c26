"""Elements of the page: figures, pictures, tables and lists as HTML, all text escaped."""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from offramp.report.style import VARIABLES, svg_bytes
from offramp.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def captioned(figure: "Figure", name: str, alt: str, caption: str) -> str:
    """A figure of the page with the words below it."""
    svg = inline_svg(figure, name, alt)
    return f"<figure>\n{svg}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>"


def picture_uri(image: NDArray[np.uint8]) -> str:
    """A picture as a data URI of a PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def html_table(table: Table) -> str:
    """A table whose first column heads its rows, in a box that scrolls."""
    caption = html.escape(table.caption or table.title)
    heads = "".join(_cell(text, place < table.left, "col") for place, text in enumerate(table.head))
    rows = (
        "".join(
            _cell(text, place < table.left, "" if place else "row")
            for place, text in enumerate(row)
        )
        for row in table.rows
    )
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return (
        f'<figure class="tabled"><figcaption>{caption}</figcaption>'
        f'<div class="table" role="region" tabindex="0" aria-label="{caption}">'
        f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div></figure>"
    )


def fact_table(facts: Mapping[str, str]) -> str:
    """Names and texts, long ones wrapped."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(text)}</td></tr>\n'
        for name, text in facts.items()
    )
    return f'<div class="table facts"><table><tbody>{rows}</tbody></table></div>'


def html_list(items: Iterable[str], style: str = "") -> str:
    """A list of texts."""
    lines = "\n".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f'<ul class="{style}">\n{lines}\n</ul>'


def _cell(text: str, as_text: bool, scope: str) -> str:
    """A cell that heads its column or row, if it has a scope."""
    tag, scoped = ("th", f' scope="{scope}"') if scope else ("td", "")
    style = ' class="text"' if as_text else ""
    return f"<{tag}{scoped}{style}>{html.escape(text)}</{tag}>"
