"""Plan: what a training run does, as typed YAML; all mistakes are reported at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, field_validator

from offramp.arguments import as_items, as_path
from offramp.backbones.top import Top
from offramp.backbones.zoo import check_name
from offramp.branches import ShippedBranch
from offramp.data import DataSpec
from offramp.data.location import paths_of
from offramp.errors import PlanError
from offramp.spec import Spec, listed, mistakes
from offramp.storage.text import decode_text
from offramp.task import Task
from offramp.training import TrainSettings


class BackbonePlan(Spec):
    """The backbone of a plan.

    Attributes:
        name: `offramp:demo`, `torchvision:NAME`, `timm:NAME`, `paper:NAME`, or `python` for
            the function that the flag `--backbone file.py:function` names.
        weights: None for random weights, `pretrained` for the library's own set, a folder that
            `offramp finetune` wrote, or a file (`.safetensors`, or a state dict that torch saved).
        num_outputs: Number of outputs of a new last layer; None keeps the last layer, or what a
            finetuned folder says.
        options: Further arguments of the library's constructor, such as `in_chans: 1` for timm.
        top: Dense layers with `num_outputs` in place of the last layer; None keeps it, or what a
            finetuned folder says.
    """

    name: str
    weights: str | None = None
    num_outputs: PositiveInt | None = None
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    top: Top | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        check_name(name)
        return name


class CutPlan(Spec):
    """A cut with several places or taps; a plain place needs no entry.

    Attributes:
        after: Places that the cut comes after.
        taps: Places whose tensors the branches read.
    """

    after: tuple[str, ...] = ()
    taps: tuple[str, ...]


class EvaluatePlan(Spec):
    """What is measured besides the exits.

    Attributes:
        rival_sizes: Shorter sides in pixels at which the whole backbone is tried as a static rival.
        rival_images: Number of training images for its new batch-norm statistics.
        bootstrap_draws: Number of draws for every interval.
        bootstrap_seed: Seed of the draws.
        timing_repeats: Number of timed calls per stage and branch; 0 measures no times.
        timing_warmup: Number of calls before them.
        threshold: Maximum softmax at which exits fire in the report; it carries no promise.
    """

    rival_sizes: tuple[PositiveInt, ...] = ()
    rival_images: PositiveInt = 2000
    bootstrap_draws: PositiveInt = 2000
    bootstrap_seed: int = 0
    timing_repeats: NonNegativeInt = 30
    timing_warmup: NonNegativeInt = 5
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9

    @field_validator("rival_sizes")
    @classmethod
    def _each_once(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if twice := sorted({size for size in sizes if sizes.count(size) > 1}):
            raise ValueError(f"give each size once; repeated: {twice}")
        return sizes


class DataPlan(Spec):
    """What every plan has: a backbone, and data for a task.

    Attributes:
        task: `classification`, or `regression` for a backbone that gives values.
    """

    task: Task = "classification"
    backbone: BackbonePlan
    data: Annotated[DataSpec, Field(discriminator="kind")]

    def differences(self, other: "DataPlan") -> list[str]:
        """Dotted keys of the settings in which another plan differs.

        The paths of the data are left out: data that has moved is the same data.
        """
        return _differences(self.without_paths(), other.without_paths())

    def without_paths(self, mode: Literal["python", "json"] = "python") -> dict[str, Any]:
        """The settings without the paths of the data."""
        data = self.data.model_dump(mode=mode, exclude={*paths_of(self.data)})
        return {**self.model_dump(mode=mode), "data": data}

    def to_yaml(self) -> str:
        """The whole plan, defaults included; reading it gives an equal plan."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


AnyPlan = TypeVar("AnyPlan", bound=DataPlan)


class Plan(DataPlan):
    """One training run: backbone, cuts, data, branches, training, evaluation.

    Attributes:
        leaves: Classes of modules that cannot be traced and are kept whole.
        branches: For each cut (a place in the backbone, a key of `cuts`, or a cut that the backbone
            names itself, such as `paper:1`), the branches to try.
    """

    cuts: dict[str, CutPlan] = Field(default_factory=dict)
    leaves: tuple[str, ...] = ()
    branches: dict[str, tuple[ShippedBranch, ...]]
    train: TrainSettings = TrainSettings()
    evaluate: EvaluatePlan = EvaluatePlan()

    @field_validator("branches")
    @classmethod
    def _some_branch_everywhere(
        cls, branches: dict[str, tuple[ShippedBranch, ...]]
    ) -> dict[str, tuple[ShippedBranch, ...]]:
        empty = [name for name, specs in branches.items() if not specs]
        if empty or not branches:
            found = f"{', '.join(empty)} has none" if empty else "there are no cuts"
            raise ValueError(f"give at least one branch for each cut; {found}")
        return branches

    def conflicts(self, bigger: "Plan") -> list[str]:
        """Dotted keys in which a larger plan does not contain this one; none if it extends it.

        It may have more seeds, learning rates, cuts and branches. All else must be equal.
        """
        branches = {
            cut: self.branches[cut] if set(self.branches[cut]) <= set(specs) else specs
            for cut, specs in bigger.branches.items()
            if cut in self.branches
        }
        mine, train = self.train, bigger.train
        common = {
            **({"seeds": mine.seeds} if set(mine.seeds) <= set(train.seeds) else {}),
            **({"lr": mine.lr} if set(mine.rates) <= set(train.rates) else {}),
        }
        shared = {
            "branches": branches,
            "cuts": {name: place for name, place in bigger.cuts.items() if name in self.cuts},
            "train": train.model_copy(update=common),
        }
        return self.differences(bigger.model_copy(update=shared))


def _differences(one: object, other: object, at: str = "") -> list[str]:
    """Dotted keys of what differs between two nested mappings."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        return [
            found
            for key in keys
            for found in _differences(one.get(key), other.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if one == other else [at]


def load_plan(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a YAML plan.

    Args:
        path: The file.
        overrides: `key=value` pairs such as `train.lr=3e-4`; the value is read as YAML.

    Raises:
        PlanError: Lists every mistake found, each with its key.
    """
    return load_kind(Plan, path, overrides)


def load_kind(kind: type[AnyPlan], path: str | Path, overrides: Sequence[str] = ()) -> AnyPlan:
    """Read a YAML plan of a kind; other arguments and errors as in `load_plan`."""
    path = as_path(path, "path")
    overrides = as_items(overrides, "overrides", "Give a list, such as ['train.lr=3e-4'].")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PlanError(f"the plan {path} cannot be read: {error}. Name a YAML file.") from error
    return checked_plan(_content(raw, path, overrides), path, kind)


def read_plan(raw: bytes, path: Path, overrides: Sequence[str] = ()) -> Plan:
    """The plan in the bytes of a file; other arguments and errors as in `load_plan`."""
    return checked_plan(_content(raw, path, overrides), path, Plan)


def _content(raw: bytes, path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    try:
        content = yaml.load(decode_text(raw), _UniqueKeys)  # noqa: S506 a SafeLoader
    except UnicodeDecodeError as error:
        raise PlanError(f"the plan {path} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        raise PlanError(f"the plan {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise PlanError(f"the plan {path} is not a mapping with backbone, data and so on.")
    for override in overrides:
        _override(content, override)
    return content


def checked_plan(content: Mapping[str, Any], path: Path, kind: type[AnyPlan]) -> AnyPlan:
    """The plan that a mapping describes; `path` is its name in errors.

    Raises:
        PlanError: Lists every mistake found, each with its key.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = mistakes(error, kind, "plan")
        raise PlanError(listed(f"the plan {path} has", faults)) from error


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key written twice, which YAML would silently drop."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]!r} is written twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _override(content: dict[str, Any], override: str) -> None:
    """Set one value; a key may itself hold dots, as cut names do."""
    key, equals, value = override.partition("=")
    if not equals:
        raise PlanError(f"--set takes key=value, got {override!r}, for example train.lr=3e-4")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise PlanError(f"--set {override}: the value is not valid YAML: {error}") from error
    target: Any = content
    rest = key
    while True:
        found = _first_key(target, rest)
        if found == rest or not isinstance(target, dict):
            break
        target, rest = target.setdefault(found, {}), rest[len(found) + 1 :]
    if not isinstance(target, dict):
        raise PlanError(f"--set {override}: {rest!r} is inside a value that is not a mapping")
    target[rest] = parsed


def _first_key(mapping: object, dotted: str) -> str:
    """The longest existing key that `dotted` starts with, else its first part."""
    known = [str(key) for key in mapping] if isinstance(mapping, dict) else []
    fitting = [key for key in known if dotted == key or dotted.startswith(key + ".")]
    return max(fitting, key=len, default=dotted.split(".")[0])
