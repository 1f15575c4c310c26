"""What every verb does alike: --quiet and --debug anywhere, JSON of failures, completion."""

import json
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from offramp.cli import app, main
from offramp.cli.notices import note
from offramp.cli.showing import AsJson, AsJsonLines, progress_bars, show
from offramp.cli.verb import as_verb, explanation
from offramp.errors import BundleError, DataError
from offramp.record import Record

VERBS = [command.callback.__name__ for command in app.registered_commands if command.callback]


def tried(*words: str) -> Result:
    """A command line with one verb, which notes, reports progress, prints, and may fail."""
    small = typer.Typer()

    class Value(Record):
        def as_json(self) -> dict[str, float]:
            return {"share": float("nan"), "ratio": float("inf")}

        def __str__(self) -> str:
            return "the result"

    @small.command()
    @as_verb
    def work(
        fails: Annotated[bool, typer.Option("--fails")] = False,
        as_json: AsJson = False,
        as_json_lines: AsJsonLines = False,
    ) -> None:
        note("a note")
        print("a print of the user's own file")  # noqa: T201
        with progress_bars() as progress:
            progress("work", 3, 7)
        if fails:
            raise DataError("there is nothing to work on")
        show(Value(), as_json)

    @small.callback()
    def options() -> None:
        pass

    return CliRunner().invoke(small, ["work", *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--debug", "tradeoff", "none.npz"],
        ["tradeoff", "--debug", "none.npz"],
        ["tradeoff", "none.npz", "--debug"],
    ],
)
def test_debugging_raises_the_error_for_the_flag_in_any_place(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["offramp", *words])
    with pytest.raises(BundleError):
        main()


def test_standard_output_holds_the_result_only() -> None:
    assert tried().stdout == "the result\n"


def test_all_other_messages_go_to_standard_error() -> None:
    assert tried().stderr == "a note\na print of the user's own file\nwork: 3/7\n"


def test_a_quiet_verb_tells_no_notes_and_no_progress() -> None:
    result = tried("--quiet")
    assert result.stdout == "the result\n"
    assert result.stderr == "a print of the user's own file\n"


def test_quiet_counts_before_the_verb_and_for_that_call_only(tmp_path: Path) -> None:
    seen = []

    @app.command("listen")
    @as_verb
    def listen() -> None:
        note("a note")

    try:
        seen = [
            CliRunner().invoke(app, words).stderr
            for words in (["--quiet", "listen"], ["listen"], ["listen", "--quiet"])
        ]
    finally:
        app.registered_commands.pop()
    assert seen == ["", "a note\n", ""]


def test_json_has_null_where_a_number_is_not_finite() -> None:
    assert json.loads(tried("--json").stdout, parse_constant=pytest.fail) == {
        "share": None,
        "ratio": None,
    }


def test_a_failure_is_one_json_document_too() -> None:
    result = tried("--fails", "--json")
    assert isinstance(result.exception, DataError)
    assert json.loads(result.stdout) == {
        "error": "DataError",
        "reason": "there is nothing to work on",
    }


def test_a_failure_of_a_stream_is_a_line() -> None:
    [line] = tried("--fails", "--jsonl").stdout.splitlines()
    assert json.loads(line)["event"] == "error"


def test_one_document_and_lines_exclude_each_other() -> None:
    assert tried("--json", "--jsonl").exit_code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_quiet_and_debug(verb: str) -> None:
    text = CliRunner().invoke(app, [verb, "--help"]).output
    assert "--quiet" in text
    assert "--debug" in text


@pytest.mark.parametrize("words", [[], *([verb] for verb in VERBS)])
def test_every_help_page_fits_80_columns(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "-h"], env={"COLUMNS": "80"})
    assert max(map(len, result.output.splitlines())) <= 80


def test_the_summaries_of_all_verbs_fit_on_a_line() -> None:
    text = CliRunner().invoke(app, ["-h"], env={"COLUMNS": "80"}).output
    assert "..." not in text.split("Commands:")[1]


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_does(verb: str) -> None:
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    silent = [each.name for each in command.params if not (each.help or "").endswith(".")]
    assert silent == []


def test_an_error_of_the_system_names_the_file_and_no_line_of_ours() -> None:
    text = explanation(FileNotFoundError(2, "gone", "photos/cat.png"))
    assert text == "No such file or directory: photos/cat.png (--debug shows where)"


def test_a_missing_package_of_the_training_half_names_the_extra() -> None:
    text = explanation(ModuleNotFoundError("No module named 'timm'", name="timm"))
    assert text == "this needs timm: pip install 'offramp[train]'"


@pytest.mark.parametrize(
    ("words", "completed"),
    [("tra", "train"), ("train --thr", "--threads"), ("calibrate runs/a --cost m", "ms")],
)
def test_bash_completes_verbs_options_and_values(words: str, completed: str) -> None:
    line = f"offramp {words}"
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    environment = {"_OFFRAMP_COMPLETE": "complete_bash", **asked}
    result = CliRunner().invoke(app, [], prog_name="offramp", env=environment)
    assert completed in result.stdout.split()
