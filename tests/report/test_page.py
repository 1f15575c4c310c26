import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.errors import BundleError
from offramp.evaluation import (
    FailedBranch,
    FailedTrial,
    Rival,
    TrialOutputs,
    compare,
    tradeoff,
    verdict,
)
from offramp.evaluation.quality import quality
from offramp.outputs import ExitOutputs
from offramp.report import ReportInputs, write_report
from offramp.report.page import report_page

VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Tags with their attributes, the text outside style, and whether all tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(inputs: ReportInputs) -> str:
    return report_page(inputs)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_every_tag_closes(page: Page) -> None:
    assert page.open == []


def test_nothing_is_fetched(text: str, page: Page) -> None:
    named = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data", "srcset") and value
    ]
    assert named
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in named)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", text))


def test_every_text_that_came_in_is_escaped(text: str, page: Page) -> None:
    assert "<script" not in text
    for given in (
        "Exits on <script>alert(1)</script>",
        "a<1>",
        "b&2",
        "2 <cores>",
        "{name: <any>}",
        "at <half>",
    ):
        assert given in page.text


def test_figures_come_first_then_the_table_then_the_verdict(text: str) -> None:
    order = ['<svg id="tradeoff"', "<table", "What this shows"]
    order += ["Quality of exits", '<svg id="oracle"', "How the branches trained", "Facts"]
    places = [text.index(mark) for mark in order]
    assert places == sorted(places)


def test_the_table_has_every_number_of_a_row(page: Page) -> None:
    for cell in ("65.0 ± 7.1", "75.0 ± 7.1", "12.0", "34.0", "8.33x", "90.0", "impractical"):
        assert cell in page.text


def test_the_verdict_and_the_notes_are_shown_whole(inputs: ReportInputs, page: Page) -> None:
    for sentence in (*verdict(inputs.comparison), *inputs.comparison.notes, "no promise"):
        assert sentence in page.text


def test_pictures_say_what_was_answered(page: Page) -> None:
    assert [image["alt"] for image in page.attributes("img")] == [
        "test picture of class cat & dog",
        "test picture of class <b>",
    ]
    assert "wrong, it is <b>" in page.text
    assert "88 % of FLOPs saved" in page.text
    assert "4 % more FLOPs" in page.text


def test_a_screen_reader_finds_heads_names_and_a_language(page: Page) -> None:
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.attributes("th"))
    figures = page.attributes("svg")
    assert len(figures) == 6
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
    assert page.attributes("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_a_phone_can_show_it(text: str, page: Page) -> None:
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in (
        page.attributes("meta")
    )
    boxes = [a for a in page.attributes("div") if (a.get("class") or "").startswith("table")]
    assert len(boxes) == len(page.attributes("table"))
    assert re.search(r"\.table \{ overflow-x: auto", text)
    assert "font: 16px/" in text


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_holds_in_both_themes(text: str) -> None:
    themes = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme))
        for name in ("ink", "muted", *(name for name in colours if name.startswith("series"))):
            pair = sorted([luminance(colours[name]), luminance(colours["page"])])
            wanted = 3.0 if name.startswith("series") else 4.5  # WCAG 2.2, 1.4.11 and 1.4.3
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= wanted, name


def test_optional_arrays_that_are_not_given_are_left_out(inputs: ReportInputs) -> None:
    bare = replace(inputs, quality=None, curves=(), pictures=(), facts={}, plan="")
    text = report_page(bare)
    for absent in (
        "no promise",
        "trained",
        "Quality of exits",
        "<img",
        "Facts",
        "<details",
        "None",
    ):
        assert absent not in text
    assert "Every exit" in text


def test_every_table_has_the_intervals_that_a_terminal_has_no_room_for(
    inputs: ReportInputs, page: Page
) -> None:
    shown = inputs.comparison
    for interval in [*(row.interval for row in shown.rows), *(r.interval for r in shown.rivals)]:
        assert interval is not None
        assert interval.text(shown.measure) in page.text
        assert interval.text(shown.measure) not in str(shown)


def test_a_failed_branch_is_a_row_that_says_why(inputs: ReportInputs) -> None:
    lost = FailedTrial("b&2", "pool", "conv", 0, "diverged in epoch <1>")
    failed = (FailedBranch("b&2", "pool", "conv", (lost,)),)
    page = Page(report_page(replace(inputs, comparison=replace(inputs.comparison, failed=failed))))
    assert "failed: diverged in epoch <1> (seed 0)" in page.text
    assert "CNN (pool) at b&2 failed: diverged in epoch <1> (seed 0)." in page.text


def test_a_regression_has_the_same_page_with_its_error(inputs: ReportInputs) -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(3, 30, 1)).astype(np.float32)
    labels, cuts = np.arange(30.0) / 30, np.array(["a<1>", "b&2"])
    shared: Any = {"labels": labels, "task": "regression", "stage_flops": [10, 20, 70]}
    trials = TrialOutputs(
        outputs=values[:2], final=values[2], cuts=cuts, cut_names=cuts,
        branches=np.array(["conv-k3"] * 2), kinds=np.array(["conv"] * 2),
        seeds=np.array([0, 0]), params=np.array([3, 3]), branch_flops=np.array([1, 1]), **shared,
    )  # fmt: skip
    outputs = ExitOutputs(outputs=values, branch_flops=np.array([1, 1, 0]), **shared)
    rival = Rival.measured("9 px", values[0], labels, flops=40, resolution=9, task="regression")
    text = report_page(
        replace(
            inputs,
            comparison=compare(trials, [rival]),
            exits=tradeoff(outputs),
            quality=quality(outputs),
            curves=(),
        )
    )
    page = Page(text)
    assert {"tradeoff", "oracle"} <= {figure["id"] for figure in page.attributes("svg")}
    assert "The final layer's MAE is" in page.text
    assert "MAE against FLOPs per sample" in page.text
    assert "accuracy" not in page.text


def test_without_differences_and_rivals_the_rest_is_shown(inputs: ReportInputs) -> None:
    rows = tuple(replace(row, practical=True) for row in inputs.comparison.rows)
    alone = replace(inputs.comparison, differences=(), rivals=(), rows=rows)
    page = Page(report_page(replace(inputs, comparison=alone)))
    assert len(page.attributes("svg")) == 5
    assert "What this shows" not in page.text
    assert "Static rivals" not in page.text


@pytest.mark.slow
def test_the_same_inputs_write_the_same_three_files(tmp_path: Path, inputs: ReportInputs) -> None:
    written = write_report(tmp_path / "run", inputs)
    assert written == tmp_path / "run" / "report.html"
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert set(files) == {"report.html", "tradeoff.png", "tradeoff.svg"}
    write_report(tmp_path / "run", inputs)
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_a_folder_that_cannot_be_made_is_one_clear_error(
    tmp_path: Path, inputs: ReportInputs
) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(BundleError, match="taken cannot be created"):
        write_report(tmp_path / "taken", inputs)


def test_warnings_come_first_and_are_absent_if_there_are_none(
    inputs: ReportInputs,
) -> None:
    short = replace(inputs, quality=None, curves=(), pictures=())
    warned = report_page(replace(short, warnings=["the final exit <guesses>"]))
    assert "Check this first" not in report_page(short)
    assert warned.index("the final exit &lt;guesses&gt;") < warned.index("Every exit")
