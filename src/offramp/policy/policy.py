"""ExitPolicy: the rule that picks the exit per sample, and what it promises."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError, ValidationInfo

from offramp import cost
from offramp.errors import BundleError, PlanError, ShapeError
from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy.decision import leaving
from offramp.policy.files import check_schema, read_json, write_json
from offramp.policy.promise import Promise, PromiseWarning
from offramp.policy.scores import Score, find_score

_SCHEMA = "offramp exit policy 1"
_CERTIFIED = ("engine", "precision", "model")


def _score_named(name: Any, info: ValidationInfo) -> Score:
    """The score of a file: one of those given with it, or one that offramp brings."""
    if not isinstance(name, str):
        raise BundleError(f"a score is stored by its name, not as {name!r}. Calibrate again.")
    own = {score.name: score for score in info.context or ()}
    return find_score(own.get(name, name))


_StoredScore = Annotated[
    Score, PlainValidator(_score_named), PlainSerializer(lambda score: score.name)
]


@dataclass(frozen=True, eq=False, kw_only=True)
class ExitPolicy:
    """Which exit answers for which sample: the first whose score is at least its threshold.

    Attributes:
        score: How sure an exit is.
        names: Of all exits, the last one included.
        thresholds: One number per early exit, None where it is disabled.
        temperatures: What each early exit's logits are divided by, where they are.
        promise: What it was certified for; None carries no promise.
        source: Engine, precision and hashes that the promise holds for.
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
                f"score is a Score, not {self.score!r}. Write find_score(name) for one that "
                "offramp brings."
            )
        find_score(self.score)
        early = len(self.names) - 1
        if len(self.thresholds) != early:
            raise ShapeError(
                f"{early + 1} exits need {early} thresholds, one per early exit; got "
                f"{len(self.thresholds)}. Write None for an exit that is disabled."
            )
        wrong = [each for each in self.thresholds if each is not None and not np.isfinite(each)]
        if wrong:
            raise PlanError(
                f"thresholds are finite numbers; got {wrong}. Write None for an exit that is "
                "disabled."
            )
        if self.temperatures is not None and (
            len(self.temperatures) != early
            or not all(0 < each < np.inf for each in self.temperatures)
        ):
            raise ShapeError(f"temperatures are {early} positive numbers; got {self.temperatures}.")

    @property
    def enabled(self) -> NDArray[np.bool_]:
        """Which early exits can fire, (E - 1,)."""
        return np.array([threshold is not None for threshold in self.thresholds], bool)

    @property
    def runs(self) -> NDArray[np.bool_]:
        """Which branches run, (E,): those enabled, and those whose answers their scores read."""
        enabled = np.append(self.enabled, True)
        if self.score.reads_earlier and self.enabled.any():
            enabled[: int(np.flatnonzero(self.enabled)[-1]) + 1] = True
        return enabled

    def choose(self, outputs: ExitOutputs) -> NDArray[np.int64]:
        """Exit that answers for each sample, (N,).

        A PromiseWarning says so where the outputs come from another engine, precision or model
        than the policy was certified for.

        Raises:
            ShapeError: The outputs have other exits.
        """
        self._check(outputs)
        self.on(outputs.source)
        return leaving(self.score.of(outputs, self.temperatures), self.thresholds)

    def answers(self, outputs: ExitOutputs) -> NDArray[np.float32]:
        """What the chosen exits answer, (N, K).

        Raises:
            ShapeError: The outputs have other exits.
        """
        leaves = self.choose(outputs)
        return outputs.outputs[leaves, np.arange(len(leaves))]

    def cost(self, outputs: ExitOutputs, unit: CostUnit = "flops") -> NDArray[np.float64]:
        """Cost of each sample, (N,), with the branches passed on the way.

        Raises:
            ShapeError: The outputs have other exits.
            OfframpError: Milliseconds are asked for and none were measured.
        """
        return self.exit_cost(outputs, unit)[self.choose(outputs)]

    def exit_cost(self, outputs: ExitOutputs, unit: CostUnit = "flops") -> NDArray[np.float64]:
        """Cost of leaving at each exit, (E,), with the branches that run on the way."""
        return cost.with_passed(*outputs.costs(unit), self.runs)

    def on(self, source: Mapping[str, Any] | None) -> Self:
        """The policy as it holds for outputs of this source.

        The promise is dropped, with a PromiseWarning, where engine, precision or the model's
        hash differ from those it was certified for.
        """
        if self.promise is None:
            return self
        here, there = self.source or {}, source or {}
        different = [
            f"{name} is {there.get(name, 'not said')} and was {here.get(name, 'not said')}"
            for name in _CERTIFIED
            if here.get(name) != there.get(name)
        ]
        if not different:
            return self
        warnings.warn(
            f"the promise does not hold here and is dropped: {'; '.join(different)}. Calibrate "
            "again on outputs of this engine and model.",
            PromiseWarning,
            stacklevel=2,
        )
        return dataclasses.replace(self, promise=None)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {"schema": _SCHEMA, **_stored().dump_python(self, mode="json")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], scores: Sequence[Score] = ()) -> "ExitPolicy":
        """Read what `as_json` gave.

        Raises:
            BundleError: It is something else.
        """
        check_schema(content, _SCHEMA)
        fields = {name: value for name, value in content.items() if name != "schema"}
        try:
            return _stored().validate_python(fields, context=scores)
        except ValidationError as error:
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"]))
            raise BundleError(
                f"this exit policy cannot be read by this version ({place}: {wrong['msg']}). "
                "Calibrate again."
            ) from error

    def save(self, path: Path | str) -> None:
        """Write one JSON file.

        Raises:
            BundleError: The file cannot be written.
        """
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path | str, scores: Sequence[Score] = ()) -> "ExitPolicy":
        """Read what `save` wrote; `scores` holds those that offramp does not bring.

        Raises:
            BundleError: No such file, or one that holds something else.
        """
        return cls.from_json(read_json(path, "a policy"), scores)

    def __str__(self) -> str:
        fires = ", ".join(
            f"{name} never" if threshold is None else f"{name} at {threshold:.4g}"
            for name, threshold in zip(self.names, self.thresholds, strict=False)
        )
        promise = "no promise" if self.promise is None else str(self.promise)
        return f"{self.score.name}: {fires}; {promise}"

    def _check(self, outputs: ExitOutputs) -> None:
        if tuple(outputs.names) != self.names:
            raise ShapeError(
                f"the policy is for exits {list(self.names)}, and the outputs have "
                f"{list(outputs.names)}. Calibrate on outputs of the same model."
            )


@cache
def _stored() -> TypeAdapter[ExitPolicy]:
    """A policy as plain values, and back."""
    return TypeAdapter(ExitPolicy)
