import base64
import io
import re

import numpy as np
from PIL import Image

from offramp.evaluation import Comparison
from offramp.report import plot_tradeoff
from offramp.report.elements import inline_svg, picture_uri
from offramp.report.style import VARIABLES, png_bytes, styles, svg_bytes


def test_the_same_comparison_gives_the_same_bytes(comparison: Comparison) -> None:
    one, other = plot_tradeoff(comparison), plot_tradeoff(comparison)
    assert svg_bytes(one) == svg_bytes(other)
    assert png_bytes(one) == png_bytes(other)


def test_a_figure_holds_no_date(comparison: Comparison) -> None:
    figure = plot_tradeoff(comparison)
    assert b"<dc:date>" not in svg_bytes(figure)
    assert set(Image.open(io.BytesIO(png_bytes(figure))).info) <= {"dpi"}


def test_an_inline_figure_takes_the_colours_of_the_page(comparison: Comparison) -> None:
    text = inline_svg(plot_tradeoff(comparison), "plot", 'a "name" & <more>')
    assert not any(colour in text for colour in VARIABLES)
    assert 'aria-label="a &quot;name&quot; &amp; &lt;more&gt;"' in text


def test_an_inline_figure_keeps_its_ids_to_itself(comparison: Comparison) -> None:
    text = inline_svg(plot_tradeoff(comparison), "plot", "")
    ids = set(re.findall(r'\bid="([^"]*)"', text))
    used = set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text))
    assert all(name.startswith("plot") for name in ids)
    assert {one or other for one, other in used} <= ids


def test_a_picture_comes_back_from_its_address() -> None:
    image = np.arange(42, dtype=np.uint8).reshape(7, 6)
    content = base64.b64decode(picture_uri(image).removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), image)


def test_a_series_keeps_its_style_however_often_it_is_met() -> None:
    found = styles(["b", "a", "b"])
    assert list(found) == ["b", "a"]
    assert found["b"] != found["a"]
