"""What README and docs show is run: Python blocks in order, commands by their own parser."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from offramp.cli import app
from offramp.run.finetune_plan import load_finetune_plan
from offramp.run.plan import load_plan

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs/tutorial.md"
"""Needs the files that it has its reader save; test_tutorial.py runs it."""


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language, in order."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [str(block) for block in found]


def commands() -> list[str]:
    """Every `$ ...` line of a console block, continued lines joined."""
    joined = "\n".join(block for page in PAGES for block in blocks(page, "console"))
    shown = re.findall(r"^\$ (.+)$", joined.replace("\\\n", " "), re.MULTILINE)
    return sorted({shlex.join(shlex.split(line, comments=True)) for line in shown})


def examples(epilog: str | None) -> list[str]:
    """The commands of offramp at the end of a help page."""
    return re.findall(r"offramp .+$", epilog or "", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if p != TUTORIAL and blocks(p, "python")], ids=lambda p: p.name
)
def test_the_python_blocks_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)  # noqa: S102  our own pages
    assert len(names) > 2


@pytest.mark.parametrize(
    "line",
    [
        *(c for c in commands() if c.startswith("offramp ") and "--help" not in c),
        *(line for verb in app.registered_commands for line in examples(verb.epilog)),
    ],
)
def test_a_shown_offramp_command_is_understood(line: str) -> None:
    verb, *arguments = shlex.split(line)[1:]
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert verb in verbs
    verbs[verb].make_context(verb, arguments)  # raises on anything it does not know


def test_every_help_page_ends_with_an_example_of_its_verb() -> None:
    for verb in app.registered_commands:
        name = verb.callback.__name__ if verb.callback else ""
        found = examples(verb.epilog)
        assert found
        assert all(line.startswith(f"offramp {name} ") for line in found)


@pytest.mark.parametrize(
    "plan", [b for page in PAGES for b in blocks(page, "yaml") if b.startswith("# offramp train")]
)
def test_a_shown_plan_loads(plan: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan)
    assert load_plan(path).branches


@pytest.mark.parametrize(
    "plan",
    [b for page in PAGES for b in blocks(page, "yaml") if b.startswith("# offramp finetune")],
)
def test_a_shown_finetune_plan_loads(plan: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan)
    assert load_finetune_plan(path).train.epochs > 1


@pytest.mark.parametrize("line", [c for c in commands() if c.startswith("make ")])
def test_a_shown_make_target_exists(line: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line.split()[1] in targets


@pytest.mark.parametrize("line", [c for c in commands() if "pip install" in c])
def test_a_shown_extra_exists(line: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {extra for group in re.findall(r"\[([\w,]+)\]", line) for extra in group.split(",")}
    assert extras <= set(project["optional-dependencies"])


def test_the_readme_shows_the_two_commands_that_start_everything() -> None:
    assert {"make demo", "make test"} <= set(commands())
