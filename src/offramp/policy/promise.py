"""Promise: what a policy was certified for, and the evidence for it."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, PositiveInt

from offramp.errors import OfframpWarning
from offramp.spec import Spec
from offramp.table import counted

Goal = Literal["max_drop", "max_rise", "max_disagreement"]
Method = Literal["ltt", "ucb"]
Within = Literal["class", "group"]


class PromiseWarning(OfframpWarning):
    """A policy is used on outputs that its promise does not apply to."""


class Promise(Spec):
    """With confidence `confidence`, the risk of the policy is at most `limit`.

    Attributes:
        goal: The risk: the mean drop in accuracy, the mean rise in absolute error, or the
            disagreement with the final exit.
        limit: Bound of the risk: a share from 0 to 1, or for a rise in the unit of the labels.
        confidence: Probability, over the random draw of the calibration samples, that the bound
            holds.
        method: How the policy was certified.
        within: Whether the bound holds in each class or each group.
        num_samples: Number of samples that the policy was tested on.
        num_clusters: Number of clusters of these samples; None if all samples are independent.
        cluster_size: Size of the largest cluster that the promise covers.
        estimate: The risk on these samples.
        loss_bound: Value at which single losses were clipped, for unbounded errors.
        unit: Name of the value of a regression, such as people, if it is known.
    """

    goal: Goal
    limit: Annotated[FiniteFloat, Field(ge=0)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    method: Method
    within: Within | None = None
    num_samples: PositiveInt
    num_clusters: PositiveInt | None = None
    cluster_size: PositiveInt | None = None
    estimate: FiniteFloat
    loss_bound: Annotated[FiniteFloat, Field(ge=0)] | None = None
    unit: str = ""

    def __str__(self) -> str:
        unit = f" ({self.unit})" if self.unit else ""
        what = {
            "max_drop": f"accuracy falls by at most {_points(self.limit)}",
            "max_rise": f"the mean absolute error{unit} rises by at most {self.limit:g}",
            "max_disagreement": f"at most {100 * self.limit:g} % disagree with the final exit",
        }[self.goal]
        each = f" in each {self.within}" if self.within else ""
        clipped = f", losses clipped at {self.loss_bound:g}" if self.loss_bound is not None else ""
        return (
            f"{what}{each}, with {100 * self.confidence:g} % confidence "
            f"({self.num_samples} samples{self._clusters()}, {self.method}{clipped})"
        )

    def _clusters(self) -> str:
        if self.num_clusters is None:
            return ""
        return f" in {counted(self.num_clusters, 'cluster')} of at most {self.cluster_size}"


def _points(share: float) -> str:
    return "1 point" if share == 0.01 else f"{100 * share:g} points"
