"""The documentation covers every module and every page can be reached."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REFERENCE = "\n".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
MODULES = sorted(
    path.stem
    for path in (ROOT / "src/offramp").iterdir()
    if (path.suffix == ".py" or (path / "__init__.py").is_file()) and not path.stem.startswith("__")
)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "cli"])
def test_a_module_has_its_place_in_the_reference(module: str) -> None:
    assert re.search(rf"^::: offramp\.{module}\b", REFERENCE, re.MULTILINE)


def test_the_reference_names_no_module_that_is_gone() -> None:
    named = re.findall(r"^::: (offramp\.[\w.]+)$", REFERENCE, re.MULTILINE)
    places = {name: ROOT / "src" / name.replace(".", "/") for name in named}
    gone = [n for n, p in places.items() if not (p.is_dir() or p.with_suffix(".py").is_file())]
    assert gone == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    nav = yaml.safe_load(text[text.index("\nnav:") :])["nav"]
    listed = set(re.findall(r"[\w/-]+\.md", str(nav)))
    docs = ROOT / "docs"
    assert {str(page.relative_to(docs)) for page in docs.rglob("*.md")} == listed


def words(page: str) -> set[tuple[str, str]]:
    """Rows of a page's tables of words: the word and what it means."""
    tables = (ROOT / page).read_text(encoding="utf-8").split("| word | means |\n|---|---|\n")[1:]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", "\n".join(t.split("\n\n")[0] for t in tables), re.M)
    return {(word, meaning) for word, meaning in rows}


def test_the_glossary_defines_each_word_of_the_readme_in_the_same_way() -> None:
    glossary = words("docs/glossary.md")
    assert len(glossary) == len(dict(glossary))
    assert words("README.md") - glossary == set()
    assert len(words("README.md")) > 5


def test_the_design_page_shows_the_layers_that_are_enforced() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = settings["tool"]["importlinter"]["contracts"][0]
    shown = (ROOT / "docs/design.md").read_text().split("## Layers")[1]
    shown = shown.split("```text\n")[1].split("\n```")[0]
    assert shown.splitlines() == [layer.strip("()") for layer in contract["layers"]]
