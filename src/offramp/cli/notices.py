"""Notices: what goes to standard error beside progress: notes, warnings, and what is logged."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from offramp.cli.streams import alert
from offramp.errors import OfframpWarning

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


def be_quiet(wanted: bool) -> None:
    """Show no notes and no progress from now on, or show them."""
    _QUIET.set(wanted)


def is_quiet() -> bool:
    """Whether notes and progress are left out."""
    return _QUIET.get()


def note(text: str) -> None:
    """Print a line on standard error that is no result, unless --quiet."""
    if not is_quiet():
        alert(text)


@contextmanager
def shown_warnings(debug: bool) -> Iterator[None]:
    """Show our warnings as lines on standard error, each once; those of others when debugging.

    What the library logs is shown alike. `python -W` and PYTHONWARNINGS are followed as always.
    """
    shown: set[str] = set()

    def show_one(text: str) -> None:
        if text not in shown:
            shown.add(text)
            alert(f"warning: {text}")

    def show_warning(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, OfframpWarning):
            show_one(str(message))
        else:
            others(message, category, *where, **more)

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say = show_one if record.levelno >= logging.WARNING else note
            say(record.getMessage())

    ours, everything, lines, hidden = (
        logging.getLogger("offramp"),
        logging.getLogger(),
        Lines(logging.INFO),
        logging.NullHandler(),
    )
    level = ours.level
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("default" if debug else "ignore")
            warnings.simplefilter("always", OfframpWarning)
        others, warnings.showwarning = warnings.showwarning, show_warning
        ours.addHandler(lines)
        ours.setLevel(logging.INFO)
        if not debug:
            everything.addHandler(hidden)  # without any handler, Python prints to standard error
        try:
            yield
        finally:
            ours.removeHandler(lines)
            ours.setLevel(level)
            everything.removeHandler(hidden)
