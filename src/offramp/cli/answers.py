"""Reading the stream of answers that `offramp watch` follows, one per line."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from offramp.cli.streams import piped
from offramp.errors import DataError
from offramp.storage.text import decode_text

_AT_A_TIME = 1000


def read_answers(
    stream: Path | None, known: Collection[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield exits and shadow disagreements: some lines of a file at a time, each line of a pipe.

    Args:
        stream: A text file; standard input if None.
        known: Exits that can fire.

    Raises:
        DataError: The file cannot be read, or a line is not an answer. Those before it are yielded.
    """
    lines, size = (
        (piped("answers", "--stream", errors="replace"), 1)
        if stream is None
        else (_lines(stream), _AT_A_TIME)
    )
    exits: list[int] = []
    disagree: list[int] = []
    try:
        for exit, shadow in _parsed(lines, known):
            exits.append(exit)
            disagree += shadow
            if len(exits) == size:
                yield exits, disagree
                exits, disagree = [], []
    except DataError:
        if exits:
            yield exits, disagree
        raise
    if exits:
        yield exits, disagree


def _lines(path: Path) -> list[str]:
    try:
        return decode_text(path.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the answers in {path} cannot be read: {error}. Name a text file, or leave --stream "
            "out to read standard input."
        ) from error


def _parsed(lines: Iterable[str], known: Collection[int]) -> Iterator[tuple[int, list[int]]]:
    """Exit and at most one shadow answer of each line that is not blank."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        exit, shadow = _numbers(number, text)
        if exit not in known:
            raise DataError(
                f"line {number} of the stream is {text!r}, but exit {exit} cannot fire under this "
                f"policy; the exits that can are {', '.join(map(str, known))}. Name the policy "
                "that gave these answers: --policy FILE."
            )
        yield exit, shadow


def _numbers(number: int, text: str) -> tuple[int, list[int]]:
    try:
        exit, *shadow = map(int, text.split(","))
    except ValueError:
        exit, shadow = 0, [-1]
    if shadow not in ([], [0], [1]):
        raise DataError(
            f"line {number} of the stream is {text!r}, not `exit` or `exit,disagrees` such as 2 or "
            "2,1. Number exits from 0; disagrees is 1 or 0."
        )
    return exit, shadow
