"""Verbs that read a run's outputs: tradeoff."""

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.showing import AsJson, outputs_file, show


def tradeoff(
    outputs: Annotated[Path, typer.Argument(help="A run folder, or one of its outputs/*.npz.")],
    as_json: AsJson = False,
) -> None:
    """Show accuracy against compute, one line per exit."""
    from offramp.evaluation import tradeoff as place
    from offramp.outputs import ExitOutputs

    show(place(ExitOutputs.load(outputs_file(outputs))), as_json)
