"""The standard streams of the process, also if closed, full, broken or not in UTF-8."""

import codecs
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

import typer

from offramp.errors import DataError, OfframpError

BROKEN_PIPE = 141
"""Exit code when the reader of standard output has gone: what a shell gives for SIGPIPE."""

_IN_ASCII = {"±": "+/-"}  # other letters become escapes


def prepare_streams() -> None:
    """Make sure that all three streams exist and that any character can be printed.

    A closed stream becomes the null device; otherwise the next file opened would get its number,
    and prints would go into that file. Characters that the locale's encoding lacks are escaped.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    codecs.register_error("offramp.ascii", _spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="offramp.ascii")


def _spelt(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(each, ascii(each)[1:-1]) for each in letters), error.end


_RESULTS: ContextVar[TextIO | None] = ContextVar("results", default=None)


@contextmanager
def results_only() -> Iterator[None]:
    """Keep standard output for what `put` prints.

    Other prints, such as those of a user's own file, go to standard error.
    """
    before = _RESULTS.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _RESULTS.reset(before)


def piped(what: str, option: str, errors: str) -> Iterable[str]:
    """Lines of standard input, in UTF-8 with or without a byte-order mark.

    Args:
        what: What the lines are, in the plural, for the message.
        option: Option that takes a file instead.
        errors: Python's handling of bytes that are not UTF-8.

    Raises:
        DataError: Standard input is closed.
    """
    if sys.stdin is None:
        raise DataError(
            f"standard input is closed, so there are no {what} to read. Pipe them in, or name a "
            f"file with {option}."
        )
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors=errors)
    return sys.stdin


def put(text: str) -> None:
    """Print a result on standard output, at once.

    Raises:
        typer.Exit: The reader has gone, as in `offramp cuts NAME | head -1`.
        OfframpError: The device is full or fails.
    """
    try:
        typer.echo(text, file=_RESULTS.get() or sys.stdout)
    except BrokenPipeError:
        drop_output()
        raise typer.Exit(BROKEN_PIPE) from None
    except OSError as error:
        drop_output()
        raise OfframpError(
            f"the result could not be written to standard output: {error.strerror}. Free some "
            "space, or send it elsewhere."
        ) from error


def alert(text: str) -> None:
    """Print a line on standard error; failing to do so does not end the work."""
    with suppress(OSError):
        typer.echo(text, file=sys.stderr)


def drop_output() -> None:
    """Send what standard output still buffers to the null device when the process ends."""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), (_RESULTS.get() or sys.stdout).fileno())
