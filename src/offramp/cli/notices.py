"""Notices: notes, warnings and log lines on standard error."""

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
    """Switch notes and progress off or on."""
    _QUIET.set(wanted)


def is_quiet() -> bool:
    """Whether notes and progress are switched off."""
    return _QUIET.get()


def note(text: str) -> None:
    """Print a line that is not a result on standard error, unless --quiet."""
    if not is_quiet():
        alert(text)


@contextmanager
def shown_warnings(debug: bool) -> Iterator[None]:
    """Show offramp's warnings as lines on standard error, each once.

    Warnings of other packages are shown with --debug. Log messages of the library are shown in the
    same way. `python -W` and PYTHONWARNINGS work as usual.
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
