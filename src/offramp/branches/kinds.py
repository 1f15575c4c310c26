"""Kinds of branch, shipped or your own: what a spec needs, and how it is named and stored."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Annotated, Any, Protocol, cast

from pydantic import Field, ValidationError
from torch import nn

from offramp.branches.conv import ConvBranch
from offramp.branches.slvit import SLViT
from offramp.branches.tap import TapShapes
from offramp.errors import PlanError
from offramp.spec import Spec, mistakes


class BranchSpec(Protocol):
    """Settings of a branch: any frozen `Spec` with a `kind`, a `label` and a `build`.

    A spec may also have a field `error_predictor`. If it is true, the branch answers with one more
    column, which predicts its own error (see `HeadSettings`).
    """

    @property
    def kind(self) -> str:
        """Name of the class on disk: a field whose default is its only value."""

    def label(self) -> str:
        """A short name to read. Two specs at one cut need different labels."""

    def build(self, features: TapShapes, num_outputs: int) -> nn.Module:
        """A module with new weights, from the taps (B, ...) to answers (B, num_outputs).

        Initial weights come from torch's global generator. In training only `nn.Dropout` may draw
        random numbers: it gets a separate random stream in each branch.
        """

    def model_dump(self, *, mode: str = ..., exclude_defaults: bool = ...) -> dict[str, Any]:
        """Every `Spec` has it."""

    def model_dump_json(self) -> str:
        """Every `Spec` has it."""


ShippedBranch = Annotated[SLViT | ConvBranch, Field(discriminator="kind")]
"""What a plan may name; in YAML and JSON `kind` says which."""

Kinds = Mapping[str, type[Spec]]
"""Classes of specs by their kind."""

SHIPPED: Kinds = {"slvit": SLViT, "conv": ConvBranch}


def branch_kinds(own: Iterable[type] = ()) -> Kinds:
    """The shipped kinds and your own, by name.

    Raises:
        PlanError: A class is not a frozen Spec with `kind`, `label` and `build`, or its kind is
            taken.
    """
    known = dict(SHIPPED)
    for cls in own:
        kind = _kind_of(cls)
        taken = known.setdefault(kind, cls)
        if taken is not cls:
            raise PlanError(
                f"{cls.__name__} and {taken.__name__} are both of the kind {kind!r}, so a saved "
                f"branch of that kind could be either. Give {cls.__name__} a kind of its own."
            )
    return known


def check_spec(spec: Any) -> None:
    """Refuse what is not a branch's settings.

    Raises:
        PlanError: Says what is missing.
    """
    if isinstance(spec, type):
        raise PlanError(f"{spec.__name__} is a class, not settings. Write {spec.__name__}().")
    if not isinstance(spec, Spec):
        raise PlanError(
            f"a branch is given by its settings, not by a {type(spec).__name__}. Use SLViT(), "
            "ConvBranch(), or a frozen Spec of your own with kind, label() and build()."
        )
    _kind_of(type(spec))
    name: Any = cast(BranchSpec, spec).label()
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise PlanError(
            f"{type(spec).__name__}.label() gives {name!r}, but tables and curves need a name. "
            "Return a short string of one line that differs whenever the settings differ."
        )


def read_spec(settings: Mapping[str, Any], kinds: Kinds) -> BranchSpec:
    """The spec that `model_dump` wrote.

    Raises:
        PlanError: The kind is unknown, or its class does not take these settings.
    """
    kind = str(settings.get("kind"))
    if kind not in kinds:
        raise PlanError(
            f"there are branches of the kind {kind!r}, which is not one of {sorted(kinds)}. Pass "
            "the class of their settings: MultiExit.load(run, branches=[YourSpec])."
        )
    try:
        return cast(BranchSpec, kinds[kind].model_validate(settings))
    except ValidationError as error:
        wrong = "; ".join(mistakes(error, kinds[kind]))
        raise PlanError(
            f"{kinds[kind].__name__} does not take the saved settings {dict(settings)}: {wrong}. "
            "Use the version of the class that the branches were trained with."
        ) from error


def predicts_error(spec: BranchSpec) -> bool:
    """Whether the last column of the branch's answers predicts its error."""
    return bool(getattr(spec, "error_predictor", False))


def key(spec: BranchSpec) -> str:
    """16 hex digits of a hash of all settings, which names the branch's random streams."""
    return sha256(changed_settings(spec).encode()).hexdigest()[:16]


def changed_settings(spec: BranchSpec) -> str:
    """The kind, and all settings that differ from their defaults, as JSON.

    A setting that a later version adds has its default value in all earlier specs, so it changes
    neither their keys nor their initial weights.
    """
    changed = spec.model_dump(mode="json", exclude_defaults=True) | {"kind": spec.kind}
    return json.dumps(changed, sort_keys=True, separators=(",", ":"))


def _kind_of(cls: Any) -> str:
    if not (isinstance(cls, type) and issubclass(cls, Spec) and cls.model_config.get("frozen")):
        raise PlanError(
            f"{getattr(cls, '__name__', cls)!s} is not a frozen Spec, so its settings could "
            "change after training and not be read back. Derive it from offramp.spec.Spec."
        )
    field = cls.model_fields.get("kind")
    missing = [name for name in ("label", "build") if not callable(getattr(cls, name, None))]
    if field is None or not isinstance(field.default, str) or not field.default or missing:
        lacks = ", ".join(f"{name}()" for name in missing) or "a kind"
        raise PlanError(
            f"{cls.__name__} has no {lacks}. A branch's settings need "
            'kind: Literal["name"] = "name", label() and build(features, num_outputs).'
        )
    return field.default
