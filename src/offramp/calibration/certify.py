"""Certify: how far down a path of candidates a limit is kept, and what is said where it is not.

Both methods test the candidates in the order learned beforehand, each at the full level, and stop
at the first that is not certified. The chance that any candidate is certified whose risk is above
the limit is then at most the level: for that, the first such one on the path has to be (fixed
sequence testing; Angelopoulos et al. 2021, Learn then Test). So the choice among the certified is
free.

For each class or group apart, a candidate is certified where it is in each of them: one that breaks
the promise does so in a certain stratum, whose test alone fails to say so with chance at most the
level. So the strata cost no part of the level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.calibration.evidence import (
    evidence_of,
    needed,
    roughly_needed,
    upper_bound,
)
from offramp.calibration.nodes import Field, Node
from offramp.calibration.wish import Wish
from offramp.errors import NoPolicyError
from offramp.policy.promise import Goal


@dataclass(frozen=True, eq=False)
class Certified:
    """How far a limit is kept.

    Attributes:
        tested: p-values (`ltt`) or bounds (`ucb`) of the candidates tested; the last is of the
            first that was not certified, if there is one.
        num: Candidates certified: the first so many of the path.
        chosen: The one of them that saves most; None where none saves anything.
    """

    tested: tuple[float, ...]
    num: int
    chosen: int | None


def certified(nodes: Sequence[Node], wish: Wish, limit: float) -> Certified:
    """Test the path in order, up to the first candidate that is not certified."""
    tested, num = [], 0
    for node in nodes:
        tested.append(_bound(node, wish) if wish.method == "ucb" else p_value(node, wish, limit))
        if tested[-1] > (limit if wish.method == "ucb" else wish.level):
            break
        num += 1
    saving = [place for place in range(num) if nodes[place].saved > 0]
    chosen = max(saving, key=lambda place: (nodes[place].saved, -place), default=None)
    return Certified(tuple(tested), num, chosen)


def p_value(node: Node, wish: Wish, limit: float) -> float:
    """For the hypothesis that the risk, of some stratum at least, is above the limit."""
    return max(each.p_value(limit, wish.level) for each in node.evidence)


def no_policy(field: Field, nodes: Sequence[Node], wish: Wish) -> NoPolicyError:
    """What to say where no limit is certified: how near it came, what would help."""
    limit = wish.limits[-1]
    what = f"no policy with an active early exit is certified for {_wished(wish)}"
    sizes = field.parts.sizes
    have = f"{sizes['test']} of {len(field.outputs.labels)} calibration samples tested it"
    saving = [node for node in nodes if node.saved > 0]
    if not saving:
        return NoPolicyError(
            f"{what}: on {sizes['order']} samples to learn from no thresholds save any "
            f"{field.unit}; {have}. {_few(field, wish, limit)}",
            num_samples_needed=_fewest(field, wish, limit) if sizes["order"] < _FEW else None,
        )
    nearest = min(saving, key=lambda node: (p_value(node, wish, limit), node.estimate))
    number = _samples_needed(field, saving, wish, limit)
    return NoPolicyError(
        f"{what}; {have}. {_nearest(field, nearest, wish, limit)} {_advice(number)}",
        closest=nearest.policy,
        num_samples_needed=number,
    )


_FEW = 50
_FOUR_OF_FIVE = 0.85  # standard errors above the mean
_WHAT: dict[Goal, str] = {
    "max_drop": "accuracy drop",
    "max_rise": "rise of the mean absolute error",
    "max_disagreement": "disagreement",
}


def _wished(wish: Wish) -> str:
    each = f" in each {wish.within}" if wish.within else ""
    wished = " or ".join(f"{limit:g}" for limit in wish.limits)
    return f"{wish.goal}={wished}{each} with {100 * wish.confidence:g} % confidence"


def _few(field: Field, wish: Wish, limit: float) -> str:
    early = field.outputs.with_passed_cost(field.unit)[:-1]
    dearer = len(early) > 0 and early.min() >= field.outputs.own_path_cost(field.unit)[-1]
    if dearer or field.parts.sizes["order"] >= _FEW:
        return "The exits cost more than they could save: leave out a branch, or cut earlier."
    return f"Calibrate on at least {_fewest(field, wish, limit)} samples."


def _nearest(field: Field, node: Node, wish: Wish, limit: float) -> str:
    worst = max(range(len(node.evidence)), key=lambda place: _failing(node, wish, limit, place))
    evidence, name = node.evidence[worst], field.strata.names[worst]
    where = f" in {name}, which has {evidence.num} samples that test" if name else ""
    value = _failing(node, wish, limit, worst)
    judged = (
        f"where at most {wish.level:.3g} certifies"
        if value > wish.level
        else "which would do, but a more careful one failed before it, and there testing stops"
    )
    return (
        f"The nearest saves {100 * node.saved:.1f} % of {field.unit}; its {_WHAT[wish.goal]} is "
        f"{evidence.estimate:.4g}{where}, p = {value:.3g} {judged}."
    )


def _failing(node: Node, wish: Wish, limit: float, place: int) -> float:
    return node.evidence[place].p_value(limit, wish.level)


def _advice(number: int | None) -> str:
    if number is None:
        return "By these samples no number of them would do. Wish for less, or train better exits."
    return (
        f"As far as these tell, about {number:,} calibration samples would do in four of five "
        "draws. Collect them, or wish for less."
    )


def _fewest(field: Field, wish: Wish, limit: float) -> int:
    """Samples that certify a limit without a single loss."""
    none = np.zeros(1)
    lossless = evidence_of(wish.goal, none, none, wish.level, field.losses.bound)
    tests = needed(lossless, limit, wish.level)
    return math.ceil(_of_all(tests * len(field.strata.names), field)) if tests < math.inf else 0


def _of_all(tests: float, field: Field) -> float:
    """Samples of which so many test in four of five draws."""
    share = field.parts.test_share
    return (tests + _FOUR_OF_FIVE * math.sqrt(tests * (1 - share))) / share


def _samples_needed(field: Field, saving: Sequence[Node], wish: Wish, limit: float) -> int | None:
    """The fewest with which a candidate that saves would be certified: rough first, then exact."""
    testing = max(1, len(field.parts.test))
    shares = [max(1, each.num) / testing for each in saving[0].evidence]

    def total(node: Node, rough: bool) -> float:
        count = roughly_needed if rough else needed
        tests = max(
            count(each, limit, wish.level) / share
            for each, share in zip(node.evidence, shares, strict=True)
        )
        return _of_all(tests, field) if math.isfinite(tests) else tests

    most_likely = min(saving, key=lambda node: total(node, True))
    number = total(most_likely, False)
    return math.ceil(number) if math.isfinite(number) else None


def _bound(node: Node, wish: Wish) -> float:
    return max(upper_bound(each, wish.level) for each in node.evidence)
