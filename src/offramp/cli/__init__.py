"""The command line: one function per verb; each parses, calls one function, shows its value."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import offramp
from offramp.cli import policies, training
from offramp.cli.notices import be_quiet, shown_warnings
from offramp.cli.streams import alert, drop_output, prepare_streams
from offramp.cli.verb import FAILURES, Debug, Quiet, as_verb, explanation

app = typer.Typer(
    help="Early exits for pretrained CNNs: attach, train on the frozen backbone, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offramp {offramp.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Early exits for pretrained CNNs: attach, train on the frozen backbone, compare."""
    be_quiet(quiet)


_VERBS: tuple[Callable[..., None], ...] = (
    training.demo,
    training.cuts,
    training.train,
    training.evaluate,
    policies.tradeoff,
    policies.calibrate,
    policies.simulate,
    policies.watch,
)
for verb in _VERBS:
    app.command()(as_verb(verb))


def main() -> None:
    """Run the command line; the exit codes are listed on the page of the command line."""
    debug = "--debug" in sys.argv
    prepare_streams()
    with shown_warnings(debug):
        try:
            app()
        except FAILURES as error:
            if debug:
                raise
            alert(f"error: {explanation(error)}")
            if isinstance(error, OSError):
                drop_output()  # it may be the stream that failed
            sys.exit(1)
