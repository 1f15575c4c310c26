"""The verb watch: follow a stream of answers to its end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli.answers import read_answers
from offramp.cli.choosing import (
    Chosen,
    MaxDisagreement,
    MaxDrop,
    MaxRise,
    PolicyFile,
    with_policies,
)
from offramp.cli.notices import note
from offramp.cli.showing import (
    AsJson,
    AsJsonLines,
    CalibrationOutputs,
    Seed,
    show,
    show_line,
)
from offramp.cli.streams import alert, put
from offramp.errors import OfframpError, PlanError

if TYPE_CHECKING:
    from offramp.drift import Alarm, Watch
    from offramp.policy import ExitPolicy


def watch(
    outputs: CalibrationOutputs,
    stream: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The answers, one per line: the exit's number, from 0. Append ,1 if the final "
            "exit was also run and disagrees, ,0 if it agrees.",
            show_default="standard input",
        ),
    ] = None,
    policy: PolicyFile = None,
    max_drop: MaxDrop = None,
    max_disagreement: MaxDisagreement = None,
    max_rise: MaxRise = None,
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
            help="Use one answer in K, for streams in which answers close together depend on each "
            "other.",
        ),
    ] = 1,
    seed: Seed = 0,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """Watch a stream of answers for drift; exit code 3 is an alarm."""
    from offramp.drift import watch as start

    reference, read = with_policies(
        outputs,
        "calibration",
        policy,
        max_drop=max_drop,
        max_disagreement=max_disagreement,
        max_rise=max_rise,
    )
    watched = start(reference, _only(read), rate=rate, every=every, seed=seed)
    chosen = read.on(reference.source)
    if not as_json:
        (note if as_json_lines else put)(str(chosen))

    def tell(alarm: "Alarm") -> None:
        if as_json_lines:
            show_line({"event": "alarm", **alarm.as_json()})
        elif not as_json:
            put(str(alarm))

    seen = _follow(watched, chosen, stream, tell)
    if as_json_lines:
        show_line({"event": "end", **seen.as_json()})
    else:
        show(seen, as_json)
    if seen.alarms:
        raise typer.Exit(3)


def _only(chosen: Chosen) -> "ExitPolicy":
    """The one policy that was chosen."""
    if len(chosen.policies) == 1:
        return chosen.policies[0]
    promises = [each.promise for each in chosen.policies if each.promise is not None]
    limits = [f"--{each.goal.replace('_', '-')} {each.limit}" for each in promises]
    raise PlanError(
        f"watch follows one policy, and {chosen.file} holds a menu of {len(limits)}. Name the one "
        f"that gave the answers: {' or '.join(limits)}."
    )


def _follow(
    watched: "Watch", chosen: Chosen, stream: Path | None, tell: "Callable[[Alarm], None]"
) -> "Watched":
    """Watch a stream to its end, or to a bad line after an alarm."""
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
        return Watched(tuple(alarms), watched, chosen, error)
    return Watched(tuple(alarms), watched, chosen)


@dataclass(frozen=True)
class Watched:
    """Result of a watch at the end of its stream."""

    alarms: "tuple[Alarm, ...]"
    watch: "Watch"
    chosen: Chosen
    fault: OfframpError | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, with a reason if there was no alarm."""
        return {
            "alarms": [alarm.as_json() for alarm in self.alarms],
            "reason": None if self.alarms else self._reason(),
            "answers": self.watch.answers,
            "e_values": dict(self.watch.e_values),
            "rate": self.watch.rate,
            "every": self.watch.every,
            "policy": self.chosen.as_json(),
            **({} if self.fault is None else {"fault": str(self.fault)}),
        }

    def _reason(self) -> str:
        if not self.watch.answers:
            return "no answers were read"
        return "no drift was found in the answers"

    def __str__(self) -> str:
        return str(self.watch)
