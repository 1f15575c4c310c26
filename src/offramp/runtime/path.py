"""Path: one sample on its way through the stages, which answers at the exits that are asked."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from offramp.answering import Asked, ModelFacts, Route, Walk
from offramp.answering.inputs import Numbers
from offramp.policy import ExitPolicy
from offramp.policy.decision import fires, soonest
from offramp.runtime.engines import Stop
from offramp.runtime.pace import Pace
from offramp.runtime.parts import Live, Parts
from offramp.spec import FINAL


@dataclass(frozen=True, eq=False)
class Reached:
    """How far a sample has come, and the last answer on the way.

    Attributes:
        route: The answer of the last exit that was asked.
        fired: Whether it is the policy's own answer: the exit fired, or is the last one.
        flops: Spent so far, on stages and branches that have ended.
    """

    route: Route
    fired: bool
    flops: int


@dataclass(frozen=True, eq=False)
class Begun:
    """A sample that no stage has run on, or some.

    Attributes:
        absent: The inputs that it lacks.
        live: What is alive: its inputs, or what the last stage that ran has left.
        stages: Number of the stages that have run.
        answers: Outputs (1, K) and own scores of the exits that have answered, by name.
        stage_ms: Milliseconds of each stage that ran, with its branch.
    """

    absent: Numbers
    live: Live
    stages: int = 0
    answers: Mapping[str, Asked] = field(default_factory=dict)
    stage_ms: tuple[float, ...] = ()


class Path:
    """One sample (1, ...) under a policy; nothing runs but what is asked for.

    Args:
        parts: The graphs.
        facts: Facts of the model.
        policy: For exits that answer without what is absent.
        begun: Where the sample is.
        pace: Learns how long the graphs take.
        clock: In seconds.
        stop: Ends a graph that runs.

    Attributes:
        answers: Outputs (1, K) and own scores of the exits that have answered, by name.
    """

    def __init__(
        self,
        parts: Parts,
        facts: ModelFacts,
        policy: ExitPolicy,
        begun: Begun,
        pace: Pace,
        clock: Callable[[], float],
        stop: Stop | None = None,
    ) -> None:
        self.policy = policy
        self._parts, self._facts, self._pace, self._clock = parts, facts, pace, clock
        self._stop = stop
        self.absent = begun.absent
        self._exits = {name: number for number, name in enumerate(policy.names)}
        self._flops = facts.stage_flops(self.absent)
        self._runs = policy.runs.tolist()
        self._live = begun.live
        self._walk = Walk(policy, 1, clock)
        self._next = begun.stages
        self._spent_flops = sum(self._flops[: begun.stages]) + sum(map(self._own, begun.answers))
        self._stage_ms = list(begun.stage_ms)
        self.answers = dict(begun.answers)

    @property
    def at(self) -> str:
        """What the stage that ran last ends with: a cut, or `final`."""
        return self._parts.ends[self._next - 1]

    @property
    def absent_names(self) -> tuple[str, ...]:
        """Names of the absent inputs."""
        return self._facts.names_of(self.absent)

    def ends_before(self, cut: str) -> tuple[str, ...]:
        """What the stages up to a cut end with, the cut included."""
        return self._parts.ends[: self._parts.ends.index(cut) + 1]

    @property
    def live(self) -> dict[str, NDArray[Any]]:
        """What is alive, as arrays (1, ...)."""
        return {name: self._parts.engine.array(value) for name, value in self._live.items()}

    @property
    def stage_ms(self) -> tuple[float, ...]:
        """Milliseconds of each stage that has run, with its branch."""
        return tuple(self._stage_ms)

    @property
    def exit(self) -> int | None:
        """Number of the exit after the stage that ran last; None if it has none."""
        return self._exits.get(self._parts.ends[self._next - 1]) if self._next else None

    @property
    def ended(self) -> bool:
        """Whether the last exit of the policy has been passed."""
        return self._next > 0 and self._parts.ends[self._next - 1] == self.policy.names[-1]

    def run_stage(self) -> None:
        """Run the next stage.

        Raises:
            Stopped: It was cut short.
        """
        stage = self._next
        with self._timed(self._parts.stage_file(stage, self.absent), new_stage=True):
            self._live = self._parts.run_stage(stage, self._live, self.absent, self._stop)
        self._next += 1
        self._spent_flops += self._flops[stage]

    def ask(self) -> Reached:
        """The answer of the exit after the stage that ran last, which must have one.

        Raises:
            Stopped: It was cut short.
            DataError: Its score is NaN.
        """
        name = self._parts.ends[self._next - 1]
        file = "" if name == FINAL else self._parts.branch_file(name)
        with self._timed(file, new_stage=False):
            self.answers[name] = self._parts.ask(name, self._live, self._stop)
        self._spent_flops += self._own(name)
        return self.judge(name)

    def judge(self, name: str) -> Reached:
        """Whether the answer of an exit is the policy's own; each is judged once, in their order.

        Raises:
            DataError: Its score is NaN.
        """
        number, (outputs, own) = self._exits[name], self.answers[name]
        score = float(self._walk.scores(number, outputs, own)[0])
        last = number == len(self.policy.thresholds)
        fired = last or fires(score, self.policy.thresholds[number])
        route = Route(number, outputs[0], score, tuple(self._stage_ms))
        return Reached(route, fired, self._spent_flops)

    def needed_ms(self) -> tuple[list[int], list[float]]:
        """Exits ahead, and what reaching and asking each is expected to take.

        The branches that the policy runs on the way are counted.
        """
        ahead: list[int] = []
        expected: list[float] = []
        total = 0.0
        for stage in range(self._next, len(self._parts.ends)):
            total += self._pace.expected_ms(self._parts.stage_file(stage, self.absent))
            exit = self._exits.get(self._parts.ends[stage])
            if exit is not None:
                own = self.branch_ms(exit)
                ahead.append(exit)
                expected.append(total + own)
                total += own if self._runs[exit] else 0.0
            if self._parts.ends[stage] == self.policy.names[-1]:
                break
        return ahead, list(soonest(expected)) if expected else []

    def branch_ms(self, exit: int) -> float:
        """What asking an exit is expected to take."""
        name = self.policy.names[exit]
        return 0.0 if name == FINAL else self._pace.expected_ms(self._parts.branch_file(name))

    def runs_branch(self, exit: int) -> bool:
        """Whether the policy runs the branch of an exit."""
        return bool(self._runs[exit])

    def doubt_next(self) -> None:
        """Note that the next exit is not tried, since it is expected to answer too late.

        Each graph on the way to it may be what is expected to take too long.
        """
        for stage in range(self._next, len(self._parts.ends)):
            self._pace.doubt(self._parts.stage_file(stage, self.absent))
            name = self._parts.ends[stage]
            if name in self._exits:
                if name != FINAL:
                    self._pace.doubt(self._parts.branch_file(name))
                return

    def _own(self, name: str) -> int:
        """FLOPs of an exit's own branch."""
        return self._facts.exits[self._facts.names.index(name)].flops

    def _timed(self, file: str, *, new_stage: bool) -> "_Timed":
        return _Timed(self, file, new_stage)

    def _note(self, file: str, ms: float, new_stage: bool, whole: bool) -> None:
        """Count the time of a graph; of one that was cut short, only if it is long already."""
        if whole or ms > self._pace.expected_ms(file):
            self._pace.add(file, ms)
        if new_stage:
            self._stage_ms.append(ms)
        elif self._stage_ms:
            self._stage_ms[-1] += ms


class _Timed:
    """Times a block and tells the path."""

    def __init__(self, path: Path, file: str, new_stage: bool) -> None:
        self._path, self._file, self._new_stage = path, file, new_stage

    def __enter__(self) -> None:
        self._before = self._path._clock()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        ms = 1000 * (self._path._clock() - self._before)
        self._path._note(self._file, ms, self._new_stage, kind is None)


def walk_all(path: Path) -> Iterator[Reached]:
    """Every exit's answer, one after the other; the next stage runs when the next is asked for."""
    while not path.ended:
        path.run_stage()
        if path.exit is not None:
            yield path.ask()
