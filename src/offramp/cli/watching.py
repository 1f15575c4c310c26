"""The verb watch: a stream of answers, followed until it ends."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli.answers import read_answers
from offramp.cli.policies import CalibrationOutputs, PolicyFile, Seed, with_policies
from offramp.cli.showing import AsJson, AsJsonLines, show, show_line
from offramp.cli.streams import alert, put
from offramp.errors import OfframpError, PlanError

if TYPE_CHECKING:
    from offramp.drift import Alarm, Watch


def watch(
    outputs: CalibrationOutputs,
    stream: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The answers: a line EXIT or EXIT,DISAGREES (1 or 0) for each.",
            show_default="standard input",
        ),
    ] = None,
    policy: PolicyFile = None,
    rate: Annotated[
        float,
        typer.Option(
            metavar="P", help="Probability of any false alarm, in a stream of any length."
        ),
    ] = 0.01,
    every: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=1,
            help="Look at one answer in K, where neighbours depend on each other.",
        ),
    ] = 1,
    seed: Seed = 0,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """Watch a stream of answers for drift; exit code 3 is an alarm."""
    from offramp.drift import watch as start

    reference, chosen = with_policies(outputs, "calibration", policy)
    if len(chosen) > 1:
        raise PlanError("watch follows one policy, and this file is a menu. Name another --policy.")
    watched = start(reference, chosen[0], rate=rate, every=every, seed=seed)

    def tell(alarm: "Alarm") -> None:
        if as_json_lines:
            show_line({"event": "alarm", **alarm.as_json()})
        elif not as_json:
            put(str(alarm))

    seen = _follow(watched, stream, tell)
    if as_json_lines:
        show_line({"event": "end", **seen.as_json()})
    else:
        show(seen, as_json)
    if seen.alarms:
        raise typer.Exit(3)


def _follow(watched: "Watch", stream: Path | None, tell: "Callable[[Alarm], None]") -> "Watched":
    """Watch a stream to its end; a bad line after an alarm ends it too."""
    alarms: list[Alarm] = []
    try:
        for exits, disagree in read_answers(stream, watched.reference.exits):
            for alarm in watched.update(exits, disagree or None):
                alarms.append(alarm)
                tell(alarm)
    except OfframpError as error:
        if not alarms:
            raise
        alert(f"error: {error}")  # the alarm is what matters, and stays the result
        return Watched(tuple(alarms), watched, error)
    return Watched(tuple(alarms), watched)


@dataclass(frozen=True)
class Watched:
    """What a watch has seen when its stream ends."""

    alarms: "tuple[Alarm, ...]"
    watch: "Watch"
    fault: OfframpError | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; the reason where there was no alarm."""
        return {
            "alarms": [alarm.as_json() for alarm in self.alarms],
            "reason": None if self.alarms else self._reason(),
            "answers": self.watch.answers,
            "e_values": dict(self.watch.e_values),
            "rate": self.watch.rate,
            "every": self.watch.every,
            **({} if self.fault is None else {"fault": str(self.fault)}),
        }

    def _reason(self) -> str:
        if not self.watch.answers:
            return "no answers were read"
        return "no drift was found in the answers"

    def __str__(self) -> str:
        return str(self.watch)
