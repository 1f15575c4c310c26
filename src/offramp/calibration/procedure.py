"""Procedure: fixed-sequence testing of the candidates, and the error if none is certified.

Both methods test the candidates in a fixed order at the full level and stop at the first one that
is not certified. With this, the probability of certifying any candidate whose risk exceeds the
limit is at most the level: it would require certifying the first such candidate in the order
(fixed-sequence testing; Angelopoulos et al. 2021, Learn then Test). Any certified candidate may
therefore be chosen.

With a promise per class or group, a candidate is certified if it passes the test in every stratum.
A candidate that breaks the promise breaks it in some stratum, and the test of that stratum alone
passes with probability at most the level. No correction for the number of strata is needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.calibration.candidates import Candidate, Inputs
from offramp.calibration.request import Request
from offramp.calibration.risks import Evidence, Losses, Sample, evidence_of, needed, upper_bound
from offramp.errors import NoPolicyError
from offramp.policy.promise import Goal

_FEW = 50
_FOUR_OF_FIVE = 0.85  # standard normal quantile of about 80 %
_SATURATED = 0.1  # share of rows tied at an exit's highest score
_WHAT: dict[Goal, str] = {
    "max_drop": "accuracy drop",
    "max_rise": "rise of the mean absolute error",
    "max_disagreement": "disagreement",
}


@dataclass(frozen=True, eq=False)
class Certified:
    """The result of testing the candidates against one limit.

    Attributes:
        tested: p-values (`ltt`) or bounds (`ucb`) of the candidates tested. The last one belongs to
            the first candidate that was not certified, if any.
        num: Number of candidates certified; they are the first ones.
        chosen: Index of the certified candidate that saves most; None if none saves anything.
    """

    tested: tuple[float, ...]
    num: int
    chosen: int | None


def certified(candidates: Sequence[Candidate], request: Request, limit: float) -> Certified:
    """Test the candidates in order and stop at the first that is not certified."""
    tested, num = [], 0
    bounds = request.method == "ucb"
    for candidate in candidates:
        tested.append(
            max(upper_bound(each, request.level) for each in candidate.evidence)
            if bounds
            else p_value(candidate, request, limit)
        )
        if tested[-1] > (limit if bounds else request.level):
            break
        num += 1
    saving = [place for place in range(num) if candidates[place].saved > 0]
    chosen = max(saving, key=lambda place: (candidates[place].saved, -place), default=None)
    return Certified(tuple(tested), num, chosen)


def p_value(candidate: Candidate, request: Request, limit: float) -> float:
    """p-value of the hypothesis that the risk exceeds the limit in at least one stratum."""
    return max(each.p_value(limit, request.level) for each in candidate.evidence)


def no_policy(inputs: Inputs, candidates: Sequence[Candidate], request: Request) -> NoPolicyError:
    """Build the error for a request without a certified policy: why testing stopped, what helps."""
    limit = request.limits[-1]
    sizes = inputs.roles.sizes
    clusters = inputs.roles.num_test_clusters
    what = (
        f"no policy with an active early exit is certified for {request}, using {sizes['test']} "
        f"of {len(inputs.outputs.labels)} calibration samples to test candidates"
        + ("" if clusters is None else f", in {clusters} clusters")
    )
    hint = _saturation(inputs)
    if not candidates:
        few = sizes["order"] < _FEW and not _expensive(inputs)
        return NoPolicyError(
            f"{what}. No thresholds save any {inputs.unit} on the {sizes['order']} samples that "
            f"order the candidates. {_few(inputs, request, limit)}{hint}",
            num_samples_needed=_fewest(inputs, request, limit) if few else None,
        )
    stopped = next(
        (each for each in candidates if p_value(each, request, limit) > request.level),
        candidates[-1],
    )
    number = _samples_needed(inputs, stopped, request, limit)
    if number is None:  # a better order may be learned from more samples
        others = [_samples_needed(inputs, each, request, limit) for each in candidates]
        found = [each for each in others if each is not None]
        number = max(min(found), 2 * len(inputs.outputs.labels)) if found else None
    return NoPolicyError(
        f"{what}. {_stopped(inputs, stopped, request, limit)} {_advice(number, hint)}",
        closest=min(candidates, key=lambda each: p_value(each, request, limit)).policy,
        num_samples_needed=number,
    )


def _stopped(inputs: Inputs, candidate: Candidate, request: Request, limit: float) -> str:
    def failing(place: int) -> float:
        return candidate.evidence[place].p_value(limit, request.level)

    worst = max(range(len(candidate.evidence)), key=failing)
    evidence, name = candidate.evidence[worst], inputs.strata.names[worst]
    units = "samples" if inputs.roles.clusters is None else "clusters"
    where = f" in {name} ({evidence.num} test {units})" if name else ""
    return (
        f"Testing stopped at a policy that saves {100 * candidate.saved:.1f} % of {inputs.unit}: "
        f"its {_WHAT[inputs.losses.goal]} is {evidence.estimate:.4g}{where}, with p = "
        f"{failing(worst):.3g}; p must be at most {request.level:.3g}."
    )


def _advice(number: int | None, hint: str) -> str:
    if number is None:
        remedy = "Relax the limit, or train better exits."
        return f"On this evidence no sample size would be enough. {hint.strip() or remedy}"
    return (
        f"An estimated {number:,} calibration samples would certify it with 80 % probability. "
        f"Collect more samples, or relax the limit.{hint}"
    )


def _saturation(inputs: Inputs) -> str:
    """Hint for scores that saturate, so that no threshold can separate right from wrong answers."""
    if inputs.temperatures is not None or inputs.outputs.task == "regression":
        return ""
    rows = np.concatenate([inputs.roles.order, inputs.roles.test])
    for exit, scores in enumerate(inputs.scores[:, rows]):
        share = float((scores == scores.max()).mean())
        bounded = scores.max() >= 1 - 1e-12 and inputs.score.name in _SOFTMAX
        if bounded and share >= _SATURATED:
            return (
                f" The softmax of {inputs.outputs.names[exit]!r} saturates: {100 * share:.0f} % "
                "of its scores are exactly 1, so no threshold can separate them. "
                "temperature=True (--temperature) or another score may help."
            )
    return ""


_SOFTMAX = ("max_softmax", "entropy", "margin")


def _expensive(inputs: Inputs) -> bool:
    early = inputs.outputs.with_passed_cost(inputs.unit)[:-1]
    return bool(early.min() >= inputs.outputs.own_path_cost(inputs.unit)[-1])


def _few(inputs: Inputs, request: Request, limit: float) -> str:
    if _expensive(inputs) or inputs.roles.sizes["order"] >= _FEW:
        return "The exits cost more than they could save. Leave out a branch, or cut earlier."
    return f"Calibrate on at least {_fewest(inputs, request, limit):,} samples."


def _fewest(inputs: Inputs, request: Request, limit: float) -> int:
    """Number of samples needed to certify the limit if no loss occurs."""
    tests = needed(_lossless(inputs, request), limit, request.level)
    rows_each = len(inputs.outputs.labels) / _num_units(inputs)
    rows = tests * rows_each * len(inputs.strata.names)
    return math.ceil(_of_all(rows, inputs)) if rows < math.inf else 0


def _lossless(inputs: Inputs, request: Request) -> Evidence:
    none = Sample(np.zeros(1), None)
    losses: Losses = inputs.losses
    return evidence_of(losses, none, none, request.level, inputs.roles.cluster_size)


def _num_units(inputs: Inputs) -> int:
    clusters = inputs.roles.clusters
    return len(inputs.outputs.labels) if clusters is None else int(clusters.max()) + 1


def _of_all(tests: float, inputs: Inputs) -> float:
    """Total number of samples needed for at least `tests` test samples with 80 % probability."""
    share = inputs.roles.test_share
    return (tests + _FOUR_OF_FIVE * math.sqrt(tests * (1 - share))) / share


def _samples_needed(
    inputs: Inputs, candidate: Candidate, request: Request, limit: float
) -> int | None:
    """Estimated number of samples needed to certify a candidate; None if its loss is too large."""
    testing = max(1, len(inputs.roles.test))
    rows = max(
        needed(each, limit, request.level) / (max(1, each.num) / testing)
        for each in candidate.evidence
    )
    return math.ceil(_of_all(rows, inputs)) if math.isfinite(rows) else None
