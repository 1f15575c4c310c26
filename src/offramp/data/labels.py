"""Class labels as text: names, or class numbers counted from 0."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(0|[1-9]\d{0,4})(\.0+)?")  # also as tables with gaps are written: 3.0


def names_of(labels: Sequence[str], classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of the classes in their order; none if labels are numbers and `classes` is None."""
    if classes is not None:
        return classes
    return () if any(map(_NUMBER.fullmatch, labels)) else tuple(sorted({*labels}))


def numbers_of(labels: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """The class number of each label; None if it is neither a name nor the number of one.

    Args:
        labels: Names or numbers. A number counts from 0, unless some names are numbers themselves.
        names: Names of the classes, in their order; none allows every number.
    """
    places = {name: place for place, name in enumerate(names)}
    counted = not any(map(_NUMBER.fullmatch, names))

    def number(label: str) -> int | None:
        if label in places or not (counted and _NUMBER.fullmatch(label)):
            return places.get(label)
        found = int(float(label))
        return found if found < len(names) or not names else None

    return [number(label) for label in labels]
