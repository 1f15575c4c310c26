"""Policies: which exit answers which sample, on plain arrays and without torch."""

from offramp.policy.decision import leaving
from offramp.policy.menu import PolicyMenu, load_policies, policy_at
from offramp.policy.policy import ExitPolicy
from offramp.policy.promise import Promise, PromiseWarning
from offramp.policy.scores import SCORES, Score, find_score

__all__ = [
    "SCORES",
    "ExitPolicy",
    "PolicyMenu",
    "Promise",
    "PromiseWarning",
    "Score",
    "find_score",
    "leaving",
    "load_policies",
    "policy_at",
]
