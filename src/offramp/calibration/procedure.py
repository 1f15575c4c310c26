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
from offramp.calibration.risks import Evidence, Sample, evidence_of, needed, upper_bound
from offramp.calibration.roles import Roles
from offramp.errors import NoPolicyError
from offramp.policy.promise import Goal
from offramp.table import counted

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
    limit, roles = request.limits[-1], inputs.roles
    what = (
        f"no policy with an active early exit is certified for {request}, using "
        f"{_tested(roles)} to test candidates"
    )
    hint = _saturation(inputs)
    if not candidates:
        few = roles.sizes["order"] < _FEW and not _expensive(inputs)
        return _declined(
            f"{what}. No thresholds save any {inputs.unit} on the {_ordering(roles)} that order "
            f"the candidates. {_few(inputs, request, limit)}{hint}",
            inputs,
            _fewest(inputs, request, limit) if few else None,
        )
    stopped = next(
        (each for each in candidates if p_value(each, request, limit) > request.level),
        candidates[-1],
    )
    number = _units_needed(inputs, stopped, request, limit)
    if number is None:  # a better order may be learned from more samples
        others = [_units_needed(inputs, each, request, limit) for each in candidates]
        found = [each for each in others if each is not None]
        number = max(min(found), 2 * roles.num_units) if found else None
    error = _declined(
        f"{what}. {_stopped(inputs, stopped, request, limit)} {_advice(inputs, number, hint)}",
        inputs,
        number,
    )
    error.closest = min(candidates, key=lambda each: p_value(each, request, limit)).policy
    return error


def _declined(text: str, inputs: Inputs, number: int | None) -> NoPolicyError:
    """The error, with the number of independent samples or clusters needed, if any is enough."""
    return NoPolicyError(
        text,
        num_samples_needed=None if number is None else math.ceil(number * _rows_each(inputs)),
        num_clusters_needed=None if inputs.roles.clusters is None else number,
    )


def _tested(roles: Roles) -> str:
    rows = f"{roles.sizes['test']} of {sum(roles.sizes.values())} calibration samples"
    if roles.clusters is None:
        return rows
    return f"{roles.num_units_with('test')} of {counted(roles.num_units, 'cluster')} ({rows})"


def _ordering(roles: Roles) -> str:
    rows = counted(roles.sizes["order"], "sample")
    if roles.clusters is None:
        return rows
    return f"{rows} in {counted(roles.num_units_with('order'), 'cluster')}"


def _stopped(inputs: Inputs, candidate: Candidate, request: Request, limit: float) -> str:
    def failing(place: int) -> float:
        return candidate.evidence[place].p_value(limit, request.level)

    worst = max(range(len(candidate.evidence)), key=failing)
    evidence, name = candidate.evidence[worst], inputs.strata.names[worst]
    where = f" in {name} ({counted(evidence.num, f'test {inputs.roles.unit}')})" if name else ""
    return (
        f"Testing stopped at a policy that saves {100 * candidate.saved:.1f} % of {inputs.unit}: "
        f"its {_WHAT[inputs.losses.goal]} is {evidence.estimate:.4g}{where}, with p = "
        f"{failing(worst):.3g}; p must be at most {request.level:.3g}."
    )


def _advice(inputs: Inputs, number: int | None, hint: str) -> str:
    if number is None:
        remedy = "Relax the limit, or train better exits."
        return f"On this evidence no sample size would be enough. {hint.strip() or remedy}"
    more = "Collect more samples"
    if inputs.roles.clusters is not None:
        more = "Collect samples of more sources (more samples of the same ones hardly help)"
    return (
        f"An estimated {_counted_units(inputs, number)} would certify it with 80 % probability. "
        f"{more}, or relax the limit.{hint}"
    )


def _counted_units(inputs: Inputs, number: int) -> str:
    """This number of independent samples, or of clusters as large as those given on average."""
    if inputs.roles.clusters is None:
        return counted(number, "calibration sample")
    return (
        f"{counted(number, 'calibration cluster')} of about {_rows_each(inputs):.3g} samples each"
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
    number = _fewest(inputs, request, limit)
    return f"Calibrate on at least {_counted_units(inputs, number)}."


def _fewest(inputs: Inputs, request: Request, limit: float) -> int:
    """Number of independent samples or clusters needed to certify the limit if no loss occurs."""
    tests = needed(_lossless(inputs, request), limit, request.level) * len(inputs.strata.names)
    return math.ceil(_of_all(tests, inputs)) if tests < math.inf else 0


def _lossless(inputs: Inputs, request: Request) -> Evidence:
    """A sample, or a cluster of the mean size of those given, without any loss."""
    roles, size = inputs.roles, max(1, round(_rows_each(inputs)))
    none = Sample(np.zeros(size), None if roles.clusters is None else np.zeros(size, np.int64))
    return evidence_of(inputs.losses, none, none, request.level, roles.cluster_size)


def _rows_each(inputs: Inputs) -> float:
    """Mean number of samples in a cluster; 1 if all are independent."""
    return len(inputs.outputs.labels) / inputs.roles.num_units


def _of_all(tests: float, inputs: Inputs) -> float:
    """Total number needed for at least `tests` of them to test, with 80 % probability."""
    share = inputs.roles.test_share
    return (tests + _FOUR_OF_FIVE * math.sqrt(tests * (1 - share))) / share


def _units_needed(
    inputs: Inputs, candidate: Candidate, request: Request, limit: float
) -> int | None:
    """Estimated number of independent samples or clusters needed to certify a candidate.

    None if its loss is too large.
    """
    testing = max(1, inputs.roles.num_units_with("test"))
    lossless = _lossless(inputs, request)
    tests = max(
        needed(each if each.num else lossless, limit, request.level) * testing / max(1, each.num)
        for each in candidate.evidence
    )
    if inputs.roles.clusters is not None:  # few clusters may seem to gain by leaving early
        tests = max(tests, needed(lossless, limit, request.level))
    return math.ceil(_of_all(tests, inputs)) if math.isfinite(tests) else None
