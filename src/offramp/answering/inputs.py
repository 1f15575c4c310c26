"""Inputs of a model with exits: how they are named and counted, and what an absent one prevents."""

from collections.abc import Iterable, Mapping, Sequence

from offramp.arguments import check_kind
from offramp.errors import DataError, PlanError

Numbers = frozenset[int]
"""Some of the inputs, counted from 0."""
NONE: Numbers = frozenset()


def input_numbers(names: Sequence[str], given: int | str | Iterable[int | str]) -> Numbers:
    """The inputs that are named, or counted from 0, of a model whose inputs have these names.

    Raises:
        PlanError: There is no such input.
    """
    known_names = " or ".join(map(repr, names))
    remedy = f"Give names of inputs ({known_names}) or their positions, counted from 0."
    check_kind(given, (int, str, Iterable), "the inputs", remedy)
    found = set()
    for each in [given] if isinstance(given, int | str) else given:
        check_kind(each, (int, str), "an input", remedy)
        known = each in names if isinstance(each, str) else 0 <= each < len(names)
        if not known:
            raise PlanError(f"the backbone has no input {each!r}. {remedy}")
        found.add(names.index(each) if isinstance(each, str) else each)
    return frozenset(found)


def inputs_text(names: Sequence[str], numbers: Iterable[int]) -> str:
    """How messages call inputs: each by its number and its name."""
    return " and ".join(f"input {each} ({names[each]!r})" for each in sorted(numbers))


def absent_of(inputs: Sequence[object]) -> Numbers:
    """The inputs that are None."""
    return frozenset(place for place, each in enumerate(inputs) if each is None)


def refusal(
    names: Sequence[str], refused: Mapping[str, Numbers], others: Sequence[str], start: str = ""
) -> DataError:
    """The error that exits cannot answer without an input.

    Args:
        names: Names of the inputs.
        refused: Exits, each with the absent inputs that it needs.
        others: Exits that answer without these inputs.
        start: What comes first, such as which sample lacks an input.
    """
    which = frozenset().union(*refused.values())
    exits, numbers = ", ".join(map(repr, refused)), ", ".join(map(str, sorted(which)))
    remedy = (
        f"{', '.join(map(repr, others))} can answer without it: the model's walk() and "
        f"collect(data, without=[{numbers}]) give these answers."
        if others
        else "No exit can. Train a branch on a feature map that does not depend on it, with "
        "absent='token'."
    )
    return DataError(
        f"{start}{exits} cannot answer without {inputs_text(names, which)}, which is absent. "
        f"{remedy}"
    )
