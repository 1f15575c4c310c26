"""Choice: which of a model's policies decides, for samples with all inputs or without some."""

from collections.abc import Iterable, Mapping
from typing import Any

from offramp.answering.facts import ModelFacts
from offramp.answering.inputs import NONE, Numbers, refusal
from offramp.arguments import as_items, check_kind
from offramp.policy import ExitPolicy, policy_at
from offramp.policy.policy import check_policy


class Choice:
    """The policies of a model, each for samples that have all inputs but some.

    Args:
        facts: Facts of the model.
        source: Engine, precision and digest of the model here, for which promises may hold.
        policies: One policy or a menu for all inputs, and the same for samples that lack some.
    """

    def __init__(
        self, facts: ModelFacts, source: Mapping[str, Any], policies: Iterable[ExitPolicy]
    ) -> None:
        self._facts, self._source = facts, source
        self._pools: dict[Numbers, list[ExitPolicy]] = {}
        every = as_items(policies, "policies", "Give a list of policies, or none.")
        for place, policy in enumerate(every):
            check_policy(policy, f"policies[{place}]")
            self._pools.setdefault(facts.numbers(policy.without), []).append(policy)

    @property
    def policies(self) -> tuple[ExitPolicy, ...]:
        """One policy, the policies of a menu from the strictest on, or none."""
        return tuple(self._pools.get(NONE, ()))

    @property
    def policies_without(self) -> Mapping[tuple[str, ...], tuple[ExitPolicy, ...]]:
        """The same for samples that lack inputs, by the names of these."""
        found = [(self._facts.names_of(each), pool) for each, pool in self._pools.items() if each]
        return {names: tuple(pool) for names, pool in found}

    def chosen(
        self, policy: ExitPolicy | float | None, absent: Iterable[int | str]
    ) -> ExitPolicy | None:
        """The policy that decides; arguments and errors as for `Opened.chosen`."""
        facts = self._facts
        lacking = facts.numbers(absent)
        self.check_answered(lacking)
        found = self._found(policy, lacking)
        if found is None:
            return None
        without = facts.numbers(found.without)
        found.check_exits(facts.exits_without(without))
        found.score.check_task(facts.task)
        found = found.on({**self._source, "without": found.without})
        return found if lacking <= without else self.only(found, lacking | without)

    def only(self, policy: ExitPolicy, absent: Numbers) -> ExitPolicy:
        """The part of a policy for the exits that answer without some inputs, not promised."""
        able = self._facts.exits_without(absent)
        return policy.only([name for name in policy.names if name in able])

    def check_answered(self, absent: Numbers) -> None:
        """Refuse a sample that no exit answers."""
        if absent and not self._facts.exits_without(absent):
            raise refusal(self._facts.input_names, self._facts.refusing(absent), ())

    def _found(self, policy: ExitPolicy | float | None, lacking: Numbers) -> ExitPolicy | None:
        """The policy given, or else the one for such samples, or else that for all inputs."""
        if isinstance(policy, ExitPolicy):
            return policy
        whole, own = self.policies, self._pools.get(lacking, [])
        if policy is None:
            return next(iter((*own, *whole)), None)
        remedy = "Give an ExitPolicy, a limit of the run's menu such as 0.01, or None."
        check_kind(policy, (float, int), "policy", remedy)
        goals = {each.promise.goal for each in whole if each.promise is not None}
        fitting = [
            each
            for each in own
            if each.promise is not None
            and each.promise.limit <= policy
            and (not goals or each.promise.goal in goals)
        ]
        return fitting[-1] if fitting else policy_at(whole, policy)
