"""How long work tells its caller how far it is; the library itself prints nothing."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a short text (what), the units done and the units there are."""


def silent(what: str, done: int, total: int) -> None:
    """Report to nobody."""
