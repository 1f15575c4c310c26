"""ExitPolicy: the rule that chooses the exit for each sample, and its promise."""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError, ValidationInfo

from offramp import cost
from offramp.arguments import as_items, check_kind
from offramp.errors import BundleError, PlanError, ShapeError
from offramp.outputs import CostUnit, ExitOutputs, check_outputs
from offramp.policy.decision import leaving
from offramp.policy.files import check_schema, read_json, write_json
from offramp.policy.promise import Promise, PromiseWarning
from offramp.policy.scores import Score, find_score
from offramp.storage.arrays import kept
from offramp.table import counted

_SCHEMA = "offramp exit policy 1"
_CERTIFIED = ("engine", "precision", "model")


def _score_named(name: Any, info: ValidationInfo) -> Score:
    """Find the score named in a file among the given custom scores and the built-in ones."""
    if not isinstance(name, str):
        raise BundleError(f"expected the name of a score, found {name!r}. Calibrate again.")
    own = {score.name: score for score in info.context or ()}
    return find_score(own.get(name, name))


_StoredScore = Annotated[
    Score, PlainValidator(_score_named), PlainSerializer(lambda score: score.name)
]


@dataclass(frozen=True, eq=False, kw_only=True)
class ExitPolicy:
    """Which exit answers which sample: the first one whose score reaches its threshold.

    Attributes:
        score: Confidence score of the exits.
        names: Names of all exits, including the last one.
        thresholds: One number per early exit; None if it is disabled.
        temperatures: One per early exit, dividing its logits; None for no scaling.
        promise: The promise it was certified for, or None.
        source: Engine, precision, hashes and absent inputs (`without`) for which the promise holds.
    """

    score: _StoredScore
    names: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    temperatures: tuple[float, ...] | None = None
    promise: Promise | None = None
    source: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.score, Score):
            raise PlanError(
                f"score must be a Score, got {self.score!r}. For a built-in score, use "
                "find_score(name)."
            )
        find_score(self.score)
        for name in ("names", "thresholds"):
            remedy = "Give a tuple with one entry for each exit."
            object.__setattr__(self, name, as_items(getattr(self, name), name, remedy))
        early = len(self.names) - 1
        if len(self.thresholds) != early:
            raise ShapeError(
                f"{counted(early + 1, 'exit')} need {counted(early, 'threshold')}, one per early "
                f"exit; got {len(self.thresholds)}. Use None to disable an exit."
            )
        wrong = [each for each in self.thresholds if not _is_threshold(each)]
        if wrong:
            raise PlanError(
                f"thresholds must be finite numbers; got {wrong}. Use None to disable an exit."
            )
        if self.temperatures is not None and (
            len(self.temperatures) != early
            or not all(0 < each < np.inf for each in self.temperatures)
        ):
            raise ShapeError(
                f"temperatures must be {counted(early, 'positive number')}, one per early exit; "
                f"got {self.temperatures}."
            )

    @property
    def without(self) -> tuple[str, ...]:
        """Inputs that were left out where it was calibrated, and are where it answers."""
        return inputs_left_out(self.source)

    @cached_property
    def enabled(self) -> NDArray[np.bool_]:
        """Which early exits are enabled, (E - 1,)."""
        return kept(np.array([threshold is not None for threshold in self.thresholds], bool))

    @cached_property
    def runs(self) -> NDArray[np.bool_]:
        """Which branches run, (E,): those of enabled exits and those that the scores need."""
        enabled = np.append(self.enabled, True)
        if self.score.reads_earlier and self.enabled.any():
            enabled[: int(np.flatnonzero(self.enabled)[-1]) + 1] = True
        return kept(enabled)

    def choose(self, outputs: ExitOutputs) -> NDArray[np.int64]:
        """The exit that answers each sample, (N,).

        Warns with a PromiseWarning if the outputs come from another engine, precision or model than
        the policy was certified for.

        Raises:
            ShapeError: The outputs have other exits.
        """
        check_outputs(outputs)
        self.check_exits(outputs.names)
        self.on(outputs.source)
        return leaving(self.score.of(outputs, self.temperatures), self.thresholds)

    def answers(self, outputs: ExitOutputs) -> NDArray[np.float32]:
        """Answers of the chosen exits, (N, K).

        Raises:
            ShapeError: The outputs have other exits.
        """
        leaves = self.choose(outputs)
        return outputs.outputs[leaves, np.arange(len(leaves))]

    def cost(self, outputs: ExitOutputs, unit: CostUnit = "flops") -> NDArray[np.float64]:
        """Cost of each sample, (N,), including the branches passed on the way.

        Raises:
            ShapeError: The outputs have other exits.
            OfframpError: `unit` is "ms", but the outputs contain no measured times.
        """
        return self.exit_cost(outputs, unit)[self.choose(outputs)]

    def exit_cost(self, outputs: ExitOutputs, unit: CostUnit = "flops") -> NDArray[np.float64]:
        """Cost of leaving at each exit, (E,), including the branches that run on the way."""
        check_outputs(outputs)
        return self.path_cost(*outputs.costs(unit))

    def path_cost(self, stages: ArrayLike, branches: ArrayLike) -> NDArray[np.float64]:
        """The same from what each stage and each branch costs, (E,) both."""
        return cost.with_passed(stages, branches, self.runs)

    def only(self, names: Sequence[str]) -> Self:
        """The policy for some of its exits, of which the last answers all that reaches it.

        It has no promise, since it was certified for all exits.

        Raises:
            ShapeError: They are not exits of the policy in its order.
        """
        names = as_items(names, "names", "Give the names of exits.")
        places = [place for place, name in enumerate(self.names) if name in names]
        if not names or [self.names[place] for place in places] != [*names]:
            raise ShapeError(
                f"{list(names)} must be some of the policy's exits {list(self.names)}, in the same "
                "order."
            )
        early = places[:-1]
        return dataclasses.replace(
            self,
            names=tuple(names),
            thresholds=tuple(self.thresholds[place] for place in early),
            temperatures=self.temperatures and tuple(self.temperatures[place] for place in early),
            promise=None,
        )

    def on(self, source: Mapping[str, Any] | None) -> Self:
        """The policy for outputs from this source.

        If engine, precision, the model's hash or the inputs left out differ from those that the
        policy was certified for, the promise is dropped with a PromiseWarning.
        """
        if self.promise is None:
            return self
        here, there = self.source or {}, source or {}
        different = [
            f"{name} is {there.get(name, 'unknown')}, certified for {here.get(name, 'unknown')}"
            for name in _CERTIFIED
            if here.get(name) != there.get(name)
        ]
        if set(self.without) != set(inputs_left_out(source)):
            different.append(f"they are {_with(source)}, certified {_with(self.source)}")
        if not different:
            return self
        warnings.warn(
            "the promise was dropped because it does not apply to these outputs: "
            f"{'; '.join(different)}. Calibrate again on outputs of this engine and model.",
            PromiseWarning,
            stacklevel=2,
        )
        return dataclasses.replace(self, promise=None)

    def check_exits(self, names: Sequence[str]) -> None:
        """Refuse a model or outputs with exits of other names.

        Raises:
            ShapeError: With both lists of names.
        """
        if tuple(names) != self.names:
            remedy = "Calibrate on outputs of the same model."
            if self.without:
                absent = " and ".join(self.without)
                remedy = f"It is for samples without {absent}: use outputs that the same model's "
                remedy += "collect(data, without=...) gives."
            raise ShapeError(
                f"the policy is for exits {list(self.names)}, but here they are {list(names)}. "
                f"{remedy}"
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {"schema": _SCHEMA, **_stored().dump_python(self, mode="json")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], scores: Sequence[Score] = ()) -> "ExitPolicy":
        """Read the result of `as_json`.

        Raises:
            BundleError: `content` is not an exit policy.
        """
        check_schema(content, _SCHEMA)
        fields = {name: value for name, value in content.items() if name != "schema"}
        try:
            return _stored().validate_python(fields, context=scores)
        except ValidationError as error:
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"]))
            raise BundleError(
                f"this version cannot read this exit policy ({place}: {wrong['msg']}). Calibrate "
                "again."
            ) from error

    def save(self, path: Path | str) -> None:
        """Write a JSON file.

        Raises:
            BundleError: The file cannot be written.
        """
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path | str, scores: Sequence[Score] = ()) -> "ExitPolicy":
        """Read a file written by `save`; `scores` are custom scores that the policy uses.

        Raises:
            BundleError: The file does not exist, or is not an exit policy.
        """
        return cls.from_json(read_json(path, "a policy"), scores)

    def __str__(self) -> str:
        fires = ", ".join(
            f"{name} never" if threshold is None else f"{name} at {threshold:.4g}"
            for name, threshold in zip(self.names, self.thresholds, strict=False)
        )
        promise = "no promise" if self.promise is None else str(self.promise)
        return f"{self.score.name}: {fires}; {promise}{self._where()}"

    def _where(self) -> str:
        if not self.without:
            return ""
        lacking = " and ".join(self.without)
        return f"; for samples without {lacking}, whose final exit is {self.names[-1]}"


def inputs_left_out(source: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Names of the inputs that were left out, for the outputs of this source.

    Raises:
        PlanError: They are not a list of names.
    """
    found = (source or {}).get("without", ())
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise PlanError(f"the source's `without` must be a list of inputs' names; got {found!r}.")
    return tuple(found)


def _with(source: Mapping[str, Any] | None) -> str:
    names = inputs_left_out(source)
    return f"without {' and '.join(names)}" if names else "with all inputs"


@cache
def _stored() -> TypeAdapter[ExitPolicy]:
    """Converts a policy to plain values and back."""
    return TypeAdapter(ExitPolicy)


def _is_threshold(given: object) -> bool:
    return given is None or (isinstance(given, Real) and math.isfinite(given))


def check_policy(policy: object, name: str = "policy") -> None:
    """Refuse an argument that is not a single ExitPolicy.

    Raises:
        ArgumentError: It is something else, such as a menu or the path of a file.
    """
    check_kind(
        policy,
        ExitPolicy,
        name,
        "Give an ExitPolicy: what calibrate returns, menu.at(limit) for one of a menu, or one of "
        "load_policies(path) for a file.",
    )
