"""Collecting: the answers of every exit on a data set, from the engine that will give them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.answering import ModelFacts
from offramp.answering.inputs import Numbers, absent_of, inputs_text, refusal
from offramp.answering.opened import Stacked
from offramp.answering.sample import Prepared, prepare
from offramp.arguments import check_kind
from offramp.bundle import BundleManifest, Times
from offramp.cost import joined
from offramp.doubts import doubts_of_answers, warn_of
from offramp.errors import DataError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.progress import Progress
from offramp.runtime.labelled import Labelled
from offramp.runtime.measuring import times_here
from offramp.runtime.parts import Live, Parts
from offramp.spec import FINAL
from offramp.task import as_targets, training_labels

Crossing = Callable[[str, Live], Live]
"""What the next stage reads, from the end of a stage and what is alive there."""


def unchanged(end: str, live: Live) -> Live:
    """A crossing that changes nothing."""
    return live


def collected(
    manifest: BundleManifest,
    parts: Parts,
    data: Any,
    *,
    source: Mapping[str, Any],
    batch_size: int,
    timings: Times | None,
    split: str,
    without: int | str | Iterable[int | str],
    progress: Progress,
    crossing: Crossing = unchanged,
) -> ExitOutputs:
    """Answers of all exits that answer without some inputs.

    `source` is the engine's and the model's, and `crossing` changes what is alive between stages;
    the other arguments and errors are those of `Runtime.collect`.
    """
    check_kind(split, str, "split", 'Give a name, such as "calibration".')
    facts = manifest.facts
    absent, samples = facts.numbers(without), Labelled.of(data)
    _check(batch_size, absent, timings)
    names = facts.exits_without(absent)
    if not names:
        raise refusal(facts.input_names, facts.refusing(absent), ())
    found = _Answers(facts, parts, names, len(samples), crossing)
    batches = _Batches(facts, samples, names, absent, batch_size)
    for rows, inputs in batches:
        found.fill(rows, inputs)
        progress(f"answers on {split or 'samples'}", batches.done, len(samples))
    where = {**source, "data": batches.key, "split": split}
    if facts.class_names:
        where["class_names"] = list(facts.class_names)
    if absent:
        where["without"] = list(facts.names_of(absent))
    times = None if absent else timings or times_here(manifest.times, parts.engine)
    outputs = _as_outputs(manifest, found, samples, batches.targets, absent, times, where)
    if FINAL in names:
        warn_of(doubts_of_answers(outputs), stacklevel=4)
    return outputs


def _check(batch_size: int, absent: Numbers, timings: Times | None) -> None:
    if batch_size < 1:
        raise PlanError(f"batch_size is {batch_size}, but a batch holds at least 1 sample.")
    if absent and timings is not None:
        raise PlanError(
            "timings are measured with all inputs, so they do not apply with `without`. Leave out "
            "the timings or `without`."
        )


class _Batches:
    """Prepared samples, several at a time; samples of one batch lack the same inputs.

    Attributes:
        targets: Labels of the samples that were read.
        done: Their number.
    """

    def __init__(
        self,
        facts: ModelFacts,
        samples: Labelled,
        names: Sequence[str],
        without: Numbers,
        size: int,
    ) -> None:
        self._facts, self._samples, self._names = facts, samples, names
        self._without, self._size = without, size
        self._digest = hashlib.sha256()
        self.targets: list[Any] = []
        self.done = 0

    def __iter__(self) -> Iterator[tuple[list[int], Stacked]]:
        count = len(self._samples)
        for start in range(0, count, self._size):
            alike: dict[Numbers, list[tuple[int, Prepared]]] = {}
            for row in range(start, min(start + self._size, count)):
                prepared = self._read(row)
                alike.setdefault(absent_of(prepared), []).append((row, prepared))
            for group in alike.values():
                self.done += len(group)
                columns = zip(*(prepared for _, prepared in group), strict=True)
                yield (
                    [row for row, _ in group],
                    tuple(None if each[0] is None else np.stack(each) for each in columns),
                )

    @property
    def key(self) -> str:
        """SHA-256 of all that was read, or what the data set itself knows."""
        samples = self._samples
        if samples.key:
            return samples.key
        whole = self._digest.copy()
        for names in (samples.ids, samples.groups, samples.clusters):
            whole.update("\n".join(map(str, () if names is None else names)).encode() + b";")
        return whole.hexdigest()

    def _read(self, row: int) -> Prepared:
        sample, target = self._samples[row]
        try:
            found = prepare(self._facts, sample, self._without)
        except (DataError, ShapeError) as error:
            raise type(error)(f"{self._samples.name_of(row)}: {error}") from error
        self._check_answered(row, absent_of(found))
        self.targets.append(target)
        for part in (*found, np.asarray(target)):
            text = "absent;" if part is None else f"{part.dtype} {part.shape};"
            self._digest.update(text.encode() + (b"" if part is None else part.tobytes()))
        return found

    def _check_answered(self, row: int, absent: Numbers) -> None:
        """Refuse a sample that lacks what an exit needs, but for those left out for all."""
        every = self._facts.refusing(absent)
        refused = {name: needs for name, needs in every.items() if name in self._names}
        if refused:
            names = self._facts.input_names
            others = [name for name in self._names if name not in refused]
            lacks = inputs_text(names, absent - self._without)
            raise refusal(names, refused, others, f"{self._samples.name_of(row)} lacks {lacks}: ")


class _Answers:
    """Answers of some exits on N samples, filled in batch by batch.

    Attributes:
        names: The E exits.
        outputs: (E, N, K)
        scores: (E, N), NaN where a branch gives none.
    """

    def __init__(
        self,
        facts: ModelFacts,
        parts: Parts,
        names: Sequence[str],
        count: int,
        crossing: Crossing,
    ) -> None:
        self._parts, self.names = parts, tuple(names)
        self._crossing = crossing
        self.outputs = np.empty((len(names), count, facts.num_outputs), np.float32)
        self.scores: NDArray[np.float64] = np.full((len(names), count), np.nan)

    def fill(self, rows: list[int], inputs: Stacked) -> None:
        """Run all stages and branches that are needed on samples that lack the same inputs."""
        absent, live = absent_of(inputs), self._parts.live(inputs)
        last = self._parts.ends.index(self.names[-1])
        for stage, end in enumerate(self._parts.ends[: last + 1]):
            live = self._parts.run_stage(stage, live, absent, samples=len(rows))
            if end in self.names:
                exit = self.names.index(end)
                outputs, scores = self._parts.ask(end, live)
                self.outputs[exit, rows] = outputs
                if scores is not None:
                    self.scores[exit, rows] = scores
            live = self._crossing(end, live)


def _as_outputs(
    manifest: BundleManifest,
    found: _Answers,
    samples: Labelled,
    targets: Sequence[Any],
    absent: Numbers,
    times: Times | None,
    source: Mapping[str, Any],
) -> ExitOutputs:
    facts, names = manifest.facts, found.names
    stage_flops, branch_flops = facts.flops(names, absent)
    stage_ms, branch_ms = exit_times(manifest, times, names) if times else (None, None)
    early = [each for each in facts.exits[:-1] if each.name in names]
    scored = early and all(each.predicts_error for each in early)
    return ExitOutputs(
        outputs=found.outputs,
        labels=training_labels(as_targets(targets), facts.num_outputs, task=facts.task),
        task=facts.task,
        stage_flops=np.array(stage_flops, np.int64),
        branch_flops=np.array(branch_flops, np.int64),
        names=names,
        stage_ms=stage_ms,
        branch_ms=branch_ms,
        scores=found.scores if scored else None,
        ids=samples.ids,
        groups=samples.groups,
        clusters=samples.clusters,
        source=source,
    )


def exit_times(
    manifest: BundleManifest, times: Times, names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median milliseconds for one sample between one exit and the next, and of each branch, (E,).

    Args:
        manifest: Of the bundle.
        times: Measured in one engine.
        names: The exits, the last one being the network's own.
    """
    ms = {each.file: each.median_ms for each in times.parts if each.batch == 1}
    ends = (*manifest.facts.cuts, FINAL)
    stages = {each.stage: ms[each.file] for each in manifest.stages if not each.without}
    branches = {each.exit: ms[each.file] for each in manifest.branches}
    per_stage = [stages.get(stage, 0.0) for stage in range(len(ends))]
    early = names[:-1]
    return np.array(joined(ends, early, per_stage)), np.array([*map(branches.get, early), 0.0])
