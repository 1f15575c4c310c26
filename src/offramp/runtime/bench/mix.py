"""Mix: which share of the samples leaves at each exit, and what the exits are worth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offramp.answering.walk import full_network
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy
from offramp.runtime.bench.ways import asking_all
from offramp.runtime.runtime import Runtime
from offramp.storage.folder import read_folder
from offramp.storage.manifest import BUNDLE
from offramp.storage.names import outputs_of
from offramp.task import measure_of

_TEST = outputs_of("test")


@dataclass(frozen=True, eq=False)
class Mix:
    """How samples leave.

    Attributes:
        policy: Says which exits are asked.
        shares: Share of the samples that each exit answers, (E,); sums to 1.
        policy_text: The policy in words.
        assumed: Whether the shares are assumed, not known.
        whence: Where the shares come from.
        values: Accuracy (0 to 1) or mean absolute error of each exit, as far as it is known.
    """

    policy: ExitPolicy
    shares: tuple[float, ...]
    policy_text: str
    assumed: bool
    whence: str
    values: Mapping[str, float]


def mix_of(runtime: Runtime) -> Mix:
    """The mix under the bundle's policy, the strictest of a menu, on its stored test answers.

    Without a policy every exit is asked; without answers the shares are equal.
    """
    facts = runtime.facts
    policy = next(iter(runtime.policies), None)
    outputs = _test_answers(runtime)
    values = _values(runtime, outputs)
    if policy is None:
        every = asking_all(full_network(facts.task, facts.names))
        text = "none in this bundle, so every exit is asked"
        return Mix(every, _equal(every), text, True, "assumed to be equal", values)
    policy.check_exits(facts.names)
    if outputs is None or outputs.names != policy.names:
        whence = (
            "assumed to be equal, since the bundle has no answers to test samples "
            "(`offramp evaluate BUNDLE --data ...` adds them)"
        )
        return Mix(policy, _equal(policy), str(policy), True, whence, values)
    leaves = replace(policy, promise=None).choose(outputs)
    shares = np.bincount(leaves, minlength=len(policy.names)) / len(leaves)
    whence = f"those under this policy on the {len(leaves)} test samples of the bundle"
    return Mix(policy, tuple(shares.tolist()), str(policy), False, whence, values)


def _equal(policy: ExitPolicy) -> tuple[float, ...]:
    asked = np.append(policy.enabled, True)
    return tuple((asked / asked.sum()).tolist())


def _test_answers(runtime: Runtime) -> ExitOutputs | None:
    folder = runtime.bundle.folder
    if folder is None:
        return None
    files = read_folder(folder, BUNDLE, optional=[_TEST]).files
    return ExitOutputs.load(files[_TEST]) if _TEST in files else None


def _values(runtime: Runtime, outputs: ExitOutputs | None) -> dict[str, float]:
    """From stored answers, or else what the manifest says of the run."""
    if outputs is not None:
        rows = outputs.measure.values(outputs.outputs, outputs.labels)
        return {name: float(each.mean()) for name, each in zip(outputs.names, rows, strict=True)}
    measure, said = measure_of(runtime.facts.task), runtime.bundle.manifest.about.get("accuracy")
    found = {} if said is None else {name: _number(text) for name, text in said.items()}
    return {name: each / measure.scale for name, each in found.items() if each is not None}


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
