"""Stored policies: a file that holds one, or a menu of several."""

from collections.abc import Sequence
from pathlib import Path

from offramp.policy.files import read_json
from offramp.policy.menu import PolicyMenu
from offramp.policy.policy import ExitPolicy
from offramp.policy.scores import Score


def load_policies(path: Path | str, scores: Sequence[Score] = ()) -> tuple[ExitPolicy, ...]:
    """The policy in a file, or all of a menu's; `scores` holds those that offramp does not bring.

    Raises:
        BundleError: No such file, or one that holds neither.
    """
    content = read_json(path, "a policy")
    if isinstance(content, dict) and "policies" in content:
        return PolicyMenu.from_json(content, scores).policies
    return (ExitPolicy.from_json(content, scores),)
