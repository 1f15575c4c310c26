"""Verb: what all commands have in common."""

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from offramp.cli.notices import be_quiet, is_quiet
from offramp.cli.showing import LEAVES_NOTHING, json_text, show_line, stopping
from offramp.cli.streams import put, results_only
from offramp.errors import NoPolicyError, OfframpError

Quiet = Annotated[bool, typer.Option("--quiet", help="Print results, warnings and errors only.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks, and the warnings of other packages.")
]

FAILURES = (OfframpError, ModuleNotFoundError, OSError)
"""Errors that end a command with exit code 1 and a message."""

_TRAINING_HALF = ("torch", "torchvision", "timm", "einops", "matplotlib", "tensorboard")


def as_verb(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function: add --quiet and --debug, and print a failure as JSON.

    The failure is raised again, for `main` to explain.
    """

    @functools.wraps(function)
    @stopping(LEAVES_NOTHING)
    def run(*, quiet: bool = False, debug: bool = False, **given: Any) -> None:
        be_quiet(quiet or is_quiet())
        if given.get("as_json") and given.get("as_json_lines"):
            raise typer.BadParameter("--json prints one document, --jsonl lines; give one of them")
        with results_only():
            try:
                function(**given)
            except FAILURES as error:
                if given.get("as_json"):
                    put(json_text(failure(error), indent=1))
                elif given.get("as_json_lines"):
                    show_line({"event": "error", **failure(error)})
                raise

    shared = {"quiet": Quiet, "debug": Debug}
    signature = inspect.signature(function)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in shared.items()
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *options]
    )
    run.__annotations__ = {**function.__annotations__, **shared}
    return run


def explanation(error: Exception) -> str:
    """Message of a failure for the user."""
    if isinstance(error, ModuleNotFoundError) and error.name in _TRAINING_HALF:
        return f"this needs {error.name}: pip install 'offramp[train]'"
    if isinstance(error, OSError) and not isinstance(error, OfframpError) and error.errno:
        place = "" if error.filename is None else f": {os.fspath(error.filename)}"
        return f"{os.strerror(error.errno)}{place} (--debug shows where)"
    return str(error)


def failure(error: Exception) -> dict[str, Any]:
    """A failure as plain values: its kind, its reason, and the closest policy if none was found."""
    content: dict[str, Any] = {"error": type(error).__name__, "reason": explanation(error)}
    if isinstance(error, NoPolicyError):
        content["num_samples_needed"] = error.num_samples_needed
        content["num_clusters_needed"] = error.num_clusters_needed
        content["closest"] = error.closest and error.closest.as_json()
    return content
