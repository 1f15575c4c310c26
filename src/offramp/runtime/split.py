"""Split: one part of the network runs here, and the rest elsewhere."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from offramp.answer import Answer
from offramp.answering import ModelFacts, Opened
from offramp.answering.sample import Sample
from offramp.bundle import Bundle
from offramp.errors import DataError, PlanError
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy
from offramp.progress import Progress, silent
from offramp.runtime.collecting import collected
from offramp.runtime.encoding import Encoding, check_encoding, decoded, encoded
from offramp.runtime.engines import Stop
from offramp.runtime.parts import Live, Parts
from offramp.runtime.path import Begun, Path, Reached
from offramp.runtime.payload import Payload, PayloadFacts, check_cut, packed, unpacked
from offramp.spec import FINAL


class Splitting(Opened):
    """A bundle in an engine, whose network may be left at a cut and resumed there.

    Attributes:
        bundle: The bundle.
        parts: Its graphs in the engine.
    """

    bundle: Bundle
    parts: Parts

    @abstractmethod
    def source(self) -> dict[str, Any]:
        """Engine, precision and digest of the model, for which a promise holds."""

    @abstractmethod
    def _path(self, sample: Sample, policy: ExitPolicy | float | None, stop: Stop | None) -> Path:
        """A sample before the first stage."""

    @abstractmethod
    def _begun(self, rule: ExitPolicy, begun: Begun, stop: Stop | None) -> Path:
        """A sample that some stages may have run on."""

    @abstractmethod
    def _reached(self, path: Path, found: Reached, prepared_ms: float) -> Answer:
        """What a path has reached, as an answer."""

    def run_until(
        self,
        sample: Sample,
        cut: str,
        policy: ExitPolicy | float | None = None,
        *,
        encoding: Encoding = "fp32",
    ) -> bytes:
        """Run the stages up to a cut; `resume`, here or on another machine, does the rest.

        The exits up to the cut, its own included, are asked if the policy asks them. If one of them
        is sure enough, nothing is left to compute, and the payload holds its answer only;
        `answer_or_payload` then returns the answer itself.

        Args:
            sample: As for `Opened.run`.
            cut: Name of a cut.
            policy: As for `Opened.run`; give `resume` the same.
            encoding: How tensors are sent: `fp32` gives the same bits as `run` on a machine and an
                engine of the same kind, `fp16` and `int8` need 2 and 4 times fewer bytes and lose
                accuracy, which `split_outputs` measures.

        Returns:
            A payload, in the safetensors format. `offramp.runtime.payload.payload_bytes` says how
            large it is.

        Raises:
            CutError: There is no such cut.
            DataError: As for `Opened.run`; a tensor is not finite, or too large for fp16.
        """
        path, found, prepared_ms = self._until(sample, cut, policy, encoding)
        return sent(path, cut, found, self.source(), encoding, prepared_ms)

    def answer_or_payload(
        self,
        sample: Sample,
        cut: str,
        policy: ExitPolicy | float | None = None,
        *,
        encoding: Encoding = "fp32",
    ) -> Answer | bytes:
        """The answer if an exit up to the cut is sure enough, and otherwise what to send.

        Arguments, payload and errors are those of `run_until`.
        """
        path, found, prepared_ms = self._until(sample, cut, policy, encoding)
        if found is not None:
            return self._reached(path, found, prepared_ms)
        return sent(path, cut, None, self.source(), encoding, prepared_ms)

    def resume(self, payload: bytes, policy: ExitPolicy | float | None = None) -> Answer:
        """Answer from what `run_until` returned for the same bundle, here or elsewhere.

        Args:
            payload: What was returned. It is checked, and may come from anywhere.
            policy: As for `Opened.run`. With the policy of `run_until` the answer is that of `run`.
                Another one decides from the answers that were given before the cut; an exit there
                that was not asked does not answer.

        Returns:
            The answer. Its milliseconds and FLOPs are those of both machines, without the time of
            the transfer. It is `promised` if all was computed with the certified engine and
            precision, sent in fp32, and every exit was asked that the policy asks.

        Raises:
            DataError: The payload is damaged, too large, of another version, or not finite.
            BundleError: It was computed with another model.
            ShapeError: Its tensors do not fit the bundle.
            PlanError: The policy needs answers that the payload lacks.
        """
        started = self._clock()
        received = unpacked(payload, self.bundle.manifest)
        rule = self._rule(policy, self.facts.numbers(received.facts.absent)).policy
        path = self._begun(rule, begun_from(received, self.facts, self.parts), None)
        unpacked_ms = 1000 * (self._clock() - started)
        found = finished(path, received, self.source())
        return self._reached(path, found, received.facts.prepared_ms + unpacked_ms)

    def _until(
        self, sample: Sample, cut: str, policy: ExitPolicy | float | None, encoding: Encoding
    ) -> tuple[Path, Reached | None, float]:
        check_cut(self.bundle.manifest, cut)
        check_encoding(encoding)
        started = self._clock()
        path = self._path(sample, policy, None)
        prepared_ms = 1000 * (self._clock() - started)
        return path, run_to(path, cut), prepared_ms


def split_outputs(
    runtime: Splitting,
    data: Any,
    cut: str,
    encoding: Encoding = "int8",
    *,
    batch_size: int = 64,
    split: str = "",
    progress: Progress = silent,
) -> ExitOutputs:
    """Answers of every exit where what crosses a cut is encoded, to compare with `collect`.

    Args:
        runtime: Computes both parts.
        data: As for `Runtime.collect`.
        cut: Name of the cut.
        encoding: Of the tensors there.
        batch_size: Samples per pass; every sample is encoded on its own.
        split: Name of the split, stored in `source`.
        progress: Called after each batch.

    Returns:
        Outputs; `precision` in their source names cut and encoding, so that a promise that holds
        for the whole network does not count for them.

    Raises:
        CutError: There is no such cut.
        DataError: As for `Runtime.collect`; a tensor is not finite, or too large for fp16.
    """
    check_cut(runtime.bundle.manifest, cut)
    check_encoding(encoding)
    engine, source = runtime.parts.engine, runtime.source()

    def crossing(end: str, live: Live) -> Live:
        if end != cut:
            return live
        arrays = {name: engine.array(value) for name, value in live.items()}
        return {
            name: engine.value(decoded(name, encoded(name, array, encoding), encoding))
            for name, array in arrays.items()
        }

    if encoding != "fp32":
        source["precision"] += f", {encoding} at the cut {cut}"
    return collected(
        runtime.bundle.manifest,
        runtime.parts,
        data,
        source=source,
        batch_size=batch_size,
        timings=None,
        split=split,
        without=(),
        progress=progress,
        crossing=crossing,
    )


def run_to(path: Path, cut: str) -> Reached | None:
    """Run a path to the end of a cut's stage; what an exit answers that is sure enough, if any.

    The cut's own exit is asked, too, if the policy asks it.
    """
    while True:
        path.run_stage()
        if path.exit is not None and path.runs_branch(path.exit):
            found = path.ask()
            if found.fired:
                return found
        if path.at == cut:
            return None


def sent(
    path: Path,
    cut: str,
    found: Reached | None,
    source: Mapping[str, Any],
    encoding: Encoding,
    prepared_ms: float,
) -> bytes:
    """The payload of a path that has run to a cut.

    Args:
        path: The path.
        cut: The cut.
        found: The answer, if an exit up to the cut was sure enough.
        source: Engine, precision and model here.
        encoding: Of the tensors.
        prepared_ms: Milliseconds that preparing the sample took.

    Raises:
        DataError: A tensor is not finite, or too large for its encoding.
    """
    facts = PayloadFacts(
        **source,
        cut=cut,
        encoding=encoding,
        absent=path.absent_names,
        asked=tuple(path.answers),
        ended=found is not None,
        prepared_ms=prepared_ms,
        stage_ms=path.stage_ms,
    )
    live = path.live if found is None else {}
    return packed(Payload(facts, live, tuple(path.answers.values())))


def begun_from(received: Payload, facts: ModelFacts, parts: Parts) -> Begun:
    """The sample of a payload, as the engine reads it."""
    return Begun(
        absent=facts.numbers(received.facts.absent),
        live={name: parts.engine.value(array) for name, array in received.live.items()},
        stages=len(received.facts.stage_ms),
        answers=dict(zip(received.facts.asked, received.answers, strict=True)),
        stage_ms=received.facts.stage_ms,
    )


def finished(path: Path, received: Payload, source: Mapping[str, Any]) -> Reached:
    """Run a path from a payload to its end.

    Args:
        path: The path, begun from the payload.
        received: The payload.
        source: Engine, precision and model here.

    Returns:
        The answer; `fired` says that it is the one that the whole network gives here.

    Raises:
        PlanError: The policy needs answers that the payload lacks.
        DataError: Nothing is left to compute, and no exit has answered.
    """
    facts = received.facts
    there = {"engine": facts.engine, "precision": facts.precision, "model": facts.model}
    same = facts.encoding == "fp32" and there == dict(source)
    found, complete = _judged(path, facts)
    if found is None:
        _check_open(path, facts)
        found = _run_on(path, facts)
    return replace(found, fired=same and complete)


def _judged(path: Path, facts: PayloadFacts) -> tuple[Reached | None, bool]:
    """The answer that was sure enough, and whether all exits were asked that the policy asks."""
    complete = True
    for name, runs in zip(path.policy.names, path.policy.runs.tolist(), strict=True):
        if not runs or name not in path.ends_before(facts.cut):
            continue
        if name in path.answers:
            found = path.judge(name)
            if found.fired:
                return found, complete
        elif name != facts.cut:
            complete = False
            _check_left_out(path, name, facts.cut)
    return None, complete


def _check_left_out(path: Path, name: str, cut: str) -> None:
    if path.policy.score.reads_earlier:
        raise PlanError(
            f"the score {path.policy.score.name!r} reads the answer of {name!r}, which comes "
            f"before the cut {cut!r}, and the payload lacks it. Give run_until the same policy."
        )


def _check_open(path: Path, facts: PayloadFacts) -> None:
    """Refuse a payload from which no exit can be reached any more."""
    last = path.policy.names[-1]
    if facts.ended:
        raise PlanError(
            f"the payload has only the answer of {facts.asked[-1]!r}, which was sure enough for "
            "the policy of run_until, and is not for this one. Give both the same policy."
        )
    if last != facts.cut and last in path.ends_before(facts.cut):
        raise DataError(
            f"the payload lacks the answer of {last!r}, the last exit that answers without "
            f"{' and '.join(facts.absent)}. Send what run_until returned."
        )


def _run_on(path: Path, facts: PayloadFacts) -> Reached:
    """Ask the cut's own exit if that was not done, and run the stages after it."""
    exit = path.exit
    if exit is not None and path.runs_branch(exit) and facts.cut not in path.answers:
        found = path.ask()
        if found.fired:
            return found
    last = run_to(path, FINAL)
    if last is None:  # the last exit of every policy answers, and _check_open found it ahead
        raise DataError("no exit has answered. Give run_until and resume the same policy.")
    return last
