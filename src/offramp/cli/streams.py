"""The standard streams of the process: closed, full, broken or without the right letters."""

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
    """Make sure that all three streams exist and that no letter can end the process.

    A stream that the caller has closed becomes the null device; otherwise the next file opened
    would get its number, and whatever prints would write into that file. A letter that the
    locale's encoding lacks is spelt in ASCII.
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

    Other prints, as those of a user's own file, go to standard error.
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
        what: Plural, for the message.
        option: Where a file can be named instead.
        errors: What Python does with bytes that are not UTF-8.

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
        typer.Exit: Nobody reads it any more, as in `offramp cuts NAME | head -1`.
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
    """Print a line on standard error; one that cannot be written ends no work."""
    with suppress(OSError):
        typer.echo(text, file=sys.stderr)


def drop_output() -> None:
    """Let what standard output still buffers go to the null device when the process ends."""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), (_RESULTS.get() or sys.stdout).fileno())
