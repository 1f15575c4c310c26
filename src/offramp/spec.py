"""Specs: frozen settings that refuse unknown names, the same in Python, YAML and on disk."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from offramp.errors import PlanError

_SHOWN = 80  # characters of a value in an error

FINAL = "final"
"""Name of the last exit, the backbone's own; no cut has it."""


class Spec(BaseModel):
    """A frozen set of settings that refuses names it does not know.

    Raises:
        PlanError: Settings are wrong; it lists all that are, each with its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            faults = mistakes(error, type(self).model_fields)
            raise PlanError(listed(f"{type(self).__name__} has", faults)) from error

    # So that pydantic does not call it for a Spec inside another, and places of mistakes stay.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def listed(start: str, faults: list[str]) -> str:
    """`start` followed by one mistake, or by several with a line each."""
    if len(faults) == 1:
        return f"{start} 1 mistake: {faults[0]}"
    return "\n".join([f"{start} {len(faults)} mistakes:", *(f"  {fault}" for fault in faults)])


def mistakes(error: ValidationError, names: Iterable[str], whole: str = "") -> list[str]:
    """Each mistake that pydantic found, as `dotted.key: what is wrong`.

    Args:
        error: Error of pydantic.
        names: Names of all settings, to suggest one for an unknown name.
        whole: Name for a mistake that concerns no single setting.
    """
    found = []
    for fault in error.errors():
        place = ".".join(map(str, fault["loc"])) or whole
        text = _what_is_wrong(fault, names)
        found.append(f"{place}: {text}" if place else text)
    return found


def _what_is_wrong(mistake: Mapping[str, Any], names: Iterable[str]) -> str:
    if mistake["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _no_such_kind(mistake["ctx"])
    if mistake["type"] in ("model_attributes_type", "model_type", "dict_type"):
        return f"write it as settings, `key: value` (got {_short(mistake['input'])})"
    if mistake["type"] == "missing":
        return "is required"
    if mistake["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(mistake["loc"][-1]), sorted(names), 1, cutoff=0.7)
        return "no such setting" + (f", did you mean {near[0]!r}?" if near else "")
    text = str(mistake["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    by_validator = mistake["type"] == "value_error" and not mistake["loc"]
    return text if by_validator else f"{text} (got {_short(mistake['input'])})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _no_such_kind(union: Mapping[str, Any]) -> str:
    """For settings whose `kind` says which they are, and whose kind is missing or unknown."""
    setting = str(union["discriminator"]).strip("'")
    if "tag" not in union:
        return f"give its {setting}"
    known = [each.strip("'") for each in str(union["expected_tags"]).split(", ")]
    near = difflib.get_close_matches(str(union["tag"]), known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"no such {setting}, {hint}(got {union['tag']!r}; there are {', '.join(known)})"


@dataclass(frozen=True)
class FeatureShape:
    """Shape of one feature map, without the batch axis, in cells."""

    channels: int
    height: int
    width: int

    @property
    def patches(self) -> tuple[int, ...]:
        """Sides of square patches that divide the map into at least 2x2 patches, ascending."""
        return tuple(
            side
            for side in range(1, min(self.height, self.width) // 2 + 1)
            if self.height % side == 0 and self.width % side == 0
        )

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


TapShape = FeatureShape | tuple[int, ...]
"""Shape of a tap without the batch axis: a FeatureShape where the tap is 4-D."""


def dims(shape: TapShape) -> tuple[int, ...]:
    """The axes of a tap's shape, without the batch axis."""
    if isinstance(shape, FeatureShape):
        return (shape.channels, shape.height, shape.width)
    return shape
