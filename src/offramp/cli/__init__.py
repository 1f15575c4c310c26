"""The command line: one function per verb; each parses, calls one function, shows its value."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import offramp
from offramp.cli import policies, training
from offramp.errors import OfframpError

app = typer.Typer(
    help="Early exits for pretrained CNNs: attach, train on the frozen backbone, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TRAINING_HALF = ("torch", "torchvision", "timm", "einops", "matplotlib", "tensorboard")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offramp {offramp.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Early exits for pretrained CNNs: attach, train on the frozen backbone, compare."""


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
    app.command()(verb)


def main() -> None:
    """Run the command line: exit code 0 done, 1 an OfframpError, 2 wrong usage, 130 stopped."""
    try:
        app()
    except OfframpError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in _TRAINING_HALF or "--debug" in sys.argv:
            raise
        typer.echo(f"error: this needs {error.name}: pip install 'offramp[train]'", err=True)
        sys.exit(1)
