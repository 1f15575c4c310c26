"""Progress of long work, reported to the caller; the library itself prints nothing."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a short text (what), the units done and the units there are.

The text up to a colon names the work; what follows is where it stands. A work whose only report is
1 of 1 is a fact, such as a choice that was made.
"""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
