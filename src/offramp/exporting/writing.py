"""Writing a bundle: graphs, manifest, policies and model card, as a whole or not at all."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from offramp.arguments import as_items, as_path, check_kind
from offramp.bundle import Bundle
from offramp.bundle.card import model_card
from offramp.bundle.contents import README
from offramp.data import as_samples
from offramp.errors import PlanError
from offramp.exporting.making import Inputs, in_fp32, made_bundle
from offramp.multiexit.facts import facts_of
from offramp.multiexit.model import MultiExit
from offramp.policy import ExitPolicy, PolicyMenu
from offramp.progress import Progress, silent
from offramp.storage.atomic import make_folder, write_bytes
from offramp.storage.folder import READY, changing, check_free
from offramp.storage.manifest import BUNDLE, MANIFEST, is_bundle
from offramp.storage.names import POLICY, lacking

Policy = ExitPolicy | PolicyMenu


def export(
    model: MultiExit,
    policy: Policy | None = None,
    *,
    to: str | Path,
    samples: Any = None,
    precision: str = "fp32",
    engines: Sequence[str] = ("onnxruntime",),
    policies_without: Mapping[int, Policy] | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> Bundle:
    """Write a bundle that `Runtime` answers from without torch; it replaces one that is there.

    Every stage and every branch becomes an ONNX graph. Before anything is written, each graph is
    run in each of the engines and compared with the model, on batches of 1, 3 and 32 samples.

    Args:
        model: Backbone and branches, which stay as they are.
        policy: What the bundle answers by unless told otherwise.
        to: The folder.
        samples: Real samples to compare graphs and model on, such as test data: a data set or a
            pair of arrays. None takes random values.
        precision: Of the weights: fp32.
        engines: Engines to compare and time.
        policies_without: Policies for samples that lack an input, by its number.
        about: Further facts for the manifest and the model card.
        progress: Called with the state of each kind of work.
        clock: In seconds, for measured times.

    Raises:
        ExportError: A graph cannot be made, or differs too much from the model.
        ExtraError: onnx or an engine is not installed.
        BundleError: The folder cannot be written, or is not a bundle and has files of these names.
    """
    check_kind(model, MultiExit, "model", "Give a MultiExit, such as MultiExit.load(run).")
    check_kind(precision, str, "precision", "Give 'fp32'.")
    if precision != "fp32":
        raise PlanError(f"precision={precision!r} cannot be exported. Use 'fp32'.")
    names = as_items(engines, "engines", "Give a list such as ['onnxruntime'].")
    given = {} if policy is None else {POLICY: policy}
    for number, each in (policies_without or {}).items():
        given[lacking(POLICY, number)] = each
    for each in given.values():
        _check_policy(model, each)
    folder = make_folder(as_path(to, "to"))
    if not (is_bundle(folder) or is_bundle(folder / READY)):  # refused before minutes of work
        check_free(folder, {MANIFEST, README, POLICY, "stages", "branches"})
    facts = in_fp32(facts_of(model))
    inputs = Inputs.of(facts, None if samples is None else as_samples(samples))
    bundle = made_bundle(model, inputs, names, progress, clock)
    manifest = bundle.manifest.model_copy(update={"about": dict(about or {})})
    content = manifest.model_dump(mode="json")
    with changing(folder, BUNDLE, content) as staged:
        for graph in manifest.graphs:
            write_bytes(staged / graph.file, bundle.read(graph.file))
        for name, each in given.items():
            each.save(staged / name)
        write_bytes(staged / README, model_card(manifest, given).encode())
    policies = tuple(each for one in given.values() for each in _listed(one))
    return replace(bundle, manifest=manifest, policies=policies, folder=folder)


def _check_policy(model: MultiExit, policy: Policy) -> None:
    """Refuse what is not a policy, or one for other exits than the model's."""
    check_kind(policy, (ExitPolicy, PolicyMenu), "policy", "Give an ExitPolicy or a menu.")
    for each in _listed(policy):
        each.check_exits(model.exits_without(each.without))


def _listed(policy: Policy) -> tuple[ExitPolicy, ...]:
    return policy.policies if isinstance(policy, PolicyMenu) else (policy,)
