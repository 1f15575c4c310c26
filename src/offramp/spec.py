"""Specs: frozen settings that refuse unknown names, the same in Python, YAML and on disk."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.errors import PydanticUserError

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
            faults = mistakes(error, type(self))
            raise PlanError(listed(f"{type(self).__name__} has", faults)) from error

    # So that pydantic does not call it for a Spec inside another, and places of mistakes stay.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def listed(start: str, faults: list[str]) -> str:
    """`start` followed by one mistake, or by several with a line each."""
    if len(faults) == 1:
        return f"{start} 1 mistake: {faults[0]}"
    return "\n".join([f"{start} {len(faults)} mistakes:", *(f"  {fault}" for fault in faults)])


def mistakes(error: ValidationError, spec: type[BaseModel], whole: str = "") -> list[str]:
    """Each mistake that pydantic found, as `dotted.key: what is wrong`.

    Args:
        error: Error of pydantic.
        spec: What the settings were for, to suggest one of its names for an unknown one.
        whole: Name for a mistake that concerns no single setting.
    """
    found = []
    faults = error.errors()
    places = [fault["loc"] for fault in faults]
    for fault in faults:
        if _follows(fault, places):
            continue
        place = ".".join(map(str, fault["loc"])) or whole
        text = _what_is_wrong(fault, spec)
        found.append(f"{place}: {text}" if place else text)
    return found


def _follows(mistake: Mapping[str, Any], places: Iterable[tuple[int | str, ...]]) -> bool:
    """Whether a list is only too short since pydantic does not count its wrong items."""
    where = mistake["loc"]
    return mistake["type"] == "too_short" and any(
        len(place) > len(where) and place[: len(where)] == where for place in places
    )


def _what_is_wrong(mistake: Mapping[str, Any], spec: type[BaseModel]) -> str:
    if mistake["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _no_such_kind(mistake["ctx"])
    if mistake["type"] in ("model_attributes_type", "model_type", "dict_type"):
        return f"write it as settings, `key: value` (got {_short(mistake['input'])})"
    if mistake["type"] == "missing":
        return "is required"
    if mistake["type"] == "extra_forbidden":
        return "no such setting" + _hint(spec, mistake["loc"])
    if mistake["type"] in ("tuple_type", "list_type") and isinstance(mistake["input"], int | float):
        return f"write a list, {_as_list(spec, mistake)} (got {mistake['input']})"
    text = str(mistake["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    by_validator = mistake["type"] == "value_error" and not mistake["loc"]
    return text if by_validator else f"{text} (got {_short(mistake['input'])})"


def _hint(spec: type[BaseModel], place: Sequence[int | str]) -> str:
    """What an unknown setting most likely stands for, or which kinds have it."""
    schema = _schema(spec)
    if near := _nearest(schema, place):
        return f", did you mean {near!r}?"
    kinds = _part_at(schema, place[:-2]).get("discriminator", {}).get("mapping", {})
    having = [k for k in kinds if place[-1] in [*_settings_at(schema, [*place[:-2], k])]]
    return f" of this kind (kinds that have it: {', '.join(having)})" if having else ""


def _as_list(spec: type[BaseModel], mistake: Mapping[str, Any]) -> str:
    """How the list would be written that a number stands in place of."""
    item = _part_at(_schema(spec), [*mistake["loc"], 0])
    wanted = ", ".join(f"{name}: ..." for name in item.get("required", ()))
    return f"[{{{wanted}}}]" if wanted else f"[{mistake['input']}]"


def _schema(spec: type[BaseModel]) -> Mapping[str, Any]:
    """The JSON schema of settings; names alone if it has a type of one's own."""
    try:
        return spec.model_json_schema()
    except PydanticUserError:
        return {"properties": dict.fromkeys(spec.model_fields)}


def _nearest(schema: Mapping[str, Any], place: Sequence[int | str]) -> str | None:
    """The setting that an unknown one most likely stands for; dotted if it belongs elsewhere."""
    wrong, here = str(place[-1]), list(_settings_at(schema, place[:-1]))
    if near := difflib.get_close_matches(wrong, sorted(here), 1, cutoff=0.7):
        return near[0]
    for name in here:
        words, wanted = name.split("_"), wrong.split("_")
        if wrong in words or name in wanted or name == "".join(word[:1] for word in wanted):
            return name
    elsewhere = dict(_settings_below(schema, schema))
    others = difflib.get_close_matches(wrong, sorted(elsewhere), 1, cutoff=0.8)
    return elsewhere[others[0]] if others else None


def _resolved(schema: Mapping[str, Any], part: Any) -> Mapping[str, Any]:
    """A part of a JSON schema, or what it refers to."""
    while isinstance(part, Mapping) and "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return part if isinstance(part, Mapping) else {}


def _part_at(schema: Mapping[str, Any], place: Sequence[int | str]) -> Mapping[str, Any]:
    """The part of a JSON schema at a place; empty if the place is not in it."""
    part = _resolved(schema, schema)
    for step in place:
        kinds = part.get("discriminator", {}).get("mapping", {})
        items, entries = part.get("items", {}), part.get("additionalProperties", {})
        if step in kinds:
            found: Any = {"$ref": kinds[step]}
        else:
            found = items if isinstance(step, int) else part.get("properties", {}).get(step)
        part = _resolved(schema, entries if found is None else found)
    return part


def _settings_at(schema: Mapping[str, Any], place: Sequence[int | str]) -> Iterable[str]:
    """Names of the settings at a place, by JSON schema; none if the place is not in it."""
    names: Iterable[str] = _part_at(schema, place).get("properties", {})
    return names


def _settings_below(
    schema: Mapping[str, Any], part: Mapping[str, Any], at: str = ""
) -> Iterable[tuple[str, str]]:
    """Names of all settings in groups of settings, each with its dotted place."""
    for name, below in part.get("properties", {}).items():
        yield name, at + name
        yield from _settings_below(schema, _resolved(schema, below), f"{at}{name}.")


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
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"no such {setting}{hint} (got {union['tag']!r}; there are {', '.join(known)})"


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
