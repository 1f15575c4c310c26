"""Verbs that read a run's outputs: tradeoff, calibrate, simulate, watch."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli.showing import AsJson, outputs_file, show
from offramp.errors import DataError, PlanError

if TYPE_CHECKING:
    from offramp.evaluation.calibration import Calibration
    from offramp.outputs import ExitOutputs
    from offramp.policy import ExitPolicy

Outputs = Annotated[Path, typer.Argument(help="A run folder, or one of its outputs/*.npz.")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Default: policy.json in the run folder.")
]
POLICY = "policy.json"


def tradeoff(outputs: Outputs, as_json: AsJson = False) -> None:
    """Show accuracy against compute, one line per exit."""
    from offramp.evaluation import tradeoff as place
    from offramp.outputs import ExitOutputs

    show(place(ExitOutputs.load(outputs_file(outputs))), as_json)


def calibrate(
    outputs: Annotated[
        Path, typer.Argument(help="A run folder, whose calibration split is used, or an .npz.")
    ],
    max_drop: Annotated[
        list[float] | None,
        typer.Option(help="Accuracy may fall by this share, 0.01 is a point; repeat for a menu."),
    ] = None,
    max_disagreement: Annotated[
        float | None, typer.Option(help="Share of answers that may differ from the final exit's.")
    ] = None,
    max_rise: Annotated[
        float | None, typer.Option(help="Regression: the mean absolute error may rise by this.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Mean cost per sample, in the unit of --cost; no promise.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="That the promise holds.")] = 0.95,
    score: Annotated[
        str, typer.Option(help="max_softmax, entropy, margin, patience, agreement or given.")
    ] = "max_softmax",
    cost: Annotated[str, typer.Option(help="What is saved: flops or ms.")] = "flops",
    method: Annotated[str, typer.Option(help="ltt or ucb.")] = "ltt",
    within: Annotated[
        str | None, typer.Option(help="Keep the promise in each class, or in each group.")
    ] = None,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Fit a temperature per exit first.")
    ] = False,
    loss_bound: Annotated[
        float | None, typer.Option(help="What single rises of --max-rise are clipped at.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split into order and test samples.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Default: policy.json, in the run folder if it is one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose thresholds that keep a promise with stated confidence, or say that none do."""
    from offramp.evaluation.calibration import calibrate as fit
    from offramp.evaluation.calibration import calibration_of
    from offramp.outputs import ExitOutputs
    from offramp.policy import PolicyMenu

    _check_choices(cost=(cost, "flops", "ms"), method=(method, "ltt", "ucb"))
    _check_choices(within=(within, None, "class", "group"))
    rows = ExitOutputs.load(outputs_file(outputs, "calibration"))
    several = len(max_drop or ()) > 1
    wish: dict[str, Any] = {
        "max_drop": (tuple(max_drop) if several else max_drop[0]) if max_drop else None,
        "max_disagreement": max_disagreement,
        "max_rise": max_rise,
        "confidence": confidence,
        "score": score,
        "cost": cost,
        "method": method,
        "within": within,
        "temperature": temperature,
        "loss_bound": loss_bound,
        "seed": seed,
    }
    path = out or (outputs / POLICY if outputs.is_dir() else Path(POLICY))
    if budget is not None:
        policy = fit(rows, budget=budget, **wish)
        policy.save(path)
        show(Fitted((), (policy,), path, _test_rows(outputs)), as_json)
        return
    found = calibration_of(rows, **wish)
    calibrations = tuple(found) if several else (found,)
    policies = tuple(each.policy for each in calibrations)
    if several:
        PolicyMenu(policies, _declined(max_drop or (), policies)).save(path)
    else:
        policies[0].save(path)
    show(Fitted(calibrations, policies, path, _test_rows(outputs)), as_json)


@dataclass(frozen=True)
class Fitted:
    """Policies as fitted, where they were written, and how they do on the test split."""

    calibrations: "tuple[Calibration, ...]"
    policies: "tuple[ExitPolicy, ...]"
    path: Path
    test: "ExitOutputs | None"

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        judged = self._judged()
        return {
            "policies": [policy.as_json() for policy in self.policies],
            "calibrations": [each.as_json() for each in self.calibrations],
            "test": None if judged is None else [each.as_json() for each in judged.policies],
            "file": str(self.path),
        }

    def __str__(self) -> str:
        from offramp.evaluation.quality.text import policy_table
        from offramp.evaluation.table import text_table

        told = list(map(str, self.calibrations or self.policies))
        judged = self._judged()
        if judged is not None:
            title, head, rows = policy_table(judged)
            told.append(f"On the {judged.samples} test samples. {title}\n{text_table(head, rows)}")
        return "\n\n".join([*told, f"written: {self.path}"])

    def _judged(self) -> Any:
        from offramp.evaluation.quality import quality

        if self.test is None:
            return None
        return quality(self.test, _named(self.policies))


def simulate(
    outputs: Outputs,
    rate: Annotated[float, typer.Option(help="Requests per second.")],
    deadline_ms: Annotated[float, typer.Option(help="From sending to the answer's arrival.")],
    policy: PolicyFile = None,
    arrivals: Annotated[str, typer.Option(help="fixed, poisson or bursts.")] = "poisson",
    burst_size: Annotated[int, typer.Option(help="Requests in one burst.")] = 10,
    uplink_ms: Annotated[float, typer.Option(help="Median time of a request's way.")] = 0.0,
    downlink_ms: Annotated[float, typer.Option(help="Median time of an answer's way.")] = 0.0,
    jitter: Annotated[
        float, typer.Option(help="Spread of these times: sigma of a lognormal; 0 is none.")
    ] = 0.0,
    requests: Annotated[int, typer.Option(help="How many.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Of samples, arrivals and ways.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Play requests with a deadline against measured stage times, for every policy."""
    from offramp.evaluation import simulation as sim
    from offramp.outputs import ExitOutputs

    _check_choices(arrivals=(arrivals, "fixed", "poisson", "bursts"))
    traffic: dict[str, sim.Arrivals] = {
        "fixed": sim.FixedRate(per_second=rate),
        "poisson": sim.Poisson(per_second=rate),
        "bursts": sim.Bursts(per_second=rate, burst_size=burst_size),
    }

    def way(median_ms: float) -> "sim.Transmission":
        if jitter and median_ms:
            return sim.Lognormal(median_ms=median_ms, sigma=jitter)
        return sim.Constant(ms=median_ms)

    result = sim.simulate(
        ExitOutputs.load(outputs_file(outputs)),
        _named(_policies(policy, outputs)),
        arrivals=traffic[arrivals],
        deadline_ms=deadline_ms,
        uplink=way(uplink_ms),
        downlink=way(downlink_ms),
        requests=requests,
        seed=seed,
    )
    show(result, as_json)


def watch(
    outputs: Annotated[
        Path, typer.Argument(help="The reference: a run folder (its calibration split) or .npz.")
    ],
    stream: Annotated[
        Path | None,
        typer.Option(
            help="Lines of `exit` or `exit,disagrees` (1 or 0, of shadow answers); default: stdin.",
        ),
    ] = None,
    policy: PolicyFile = None,
    rate: Annotated[float, typer.Option(help="Probability of any false alarm.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of tie breaking.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Read answers and tell when exit mix or disagreement have left the reference; 3 if so."""
    from offramp.evaluation.drift import watch as begin
    from offramp.outputs import ExitOutputs

    chosen = _policies(policy, outputs)
    if len(chosen) > 1:
        raise PlanError("watch follows one policy, and this file is a menu. Name another --policy.")
    watched = begin(
        ExitOutputs.load(outputs_file(outputs, "calibration")), chosen[0], rate=rate, seed=seed
    )
    alarms = 0
    for exits, disagree in _answers(sys.stdin if stream is None else _lines(stream)):
        for alarm in watched.update(exits, disagree or None):
            alarms += 1
            typer.echo(json.dumps(alarm.as_json()) if as_json else str(alarm))
    typer.echo(str(watched), err=as_json)
    if alarms:
        raise typer.Exit(3)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the answers in {path} cannot be read: {error}. Name a text file, or leave --stream "
            "out to read standard input."
        ) from error


def _answers(lines: Any, size: int = 1000) -> Iterator[tuple[list[int], list[int]]]:
    """Exits and shadow disagreements of some lines at a time; from a pipe, of each line."""
    size = 1 if lines is sys.stdin else size
    exits: list[int] = []
    disagree: list[int] = []
    for number, line in enumerate(lines, 1):
        try:
            exit, *shadow = map(int, line.strip().split(","))
        except ValueError:
            raise DataError(
                f"line {number} of the stream is {line.strip()!r}, not `exit` or `exit,disagrees` "
                "such as 2 or 2,1. Number exits from 0."
            ) from None
        exits.append(exit)
        disagree += shadow
        if len(exits) == size:
            yield exits, disagree
            exits, disagree = [], []
    if exits:
        yield exits, disagree


def _policies(path: Path | None, outputs: Path) -> "tuple[ExitPolicy, ...]":
    """Policies of a file: one, or those of a menu."""
    from offramp.policy import load_policies

    if path is None:
        if not outputs.is_dir():
            raise PlanError("name the policy: --policy policy.json, as `offramp calibrate` wrote.")
        path = outputs / POLICY
    return load_policies(path)


def _test_rows(outputs: Path) -> "ExitOutputs | None":
    from offramp.outputs import ExitOutputs

    return ExitOutputs.load(outputs_file(outputs)) if outputs.is_dir() else None


def _named(policies: "Sequence[ExitPolicy]") -> "dict[str, ExitPolicy]":
    """Each under a short name: its promise's limit, or what it is."""
    return {
        "budget" if each.promise is None else f"{each.promise.goal} {each.promise.limit:g}": each
        for each in policies
    }


def _declined(limits: Sequence[float], policies: "tuple[ExitPolicy, ...]") -> tuple[float, ...]:
    kept = {policy.promise.limit for policy in policies if policy.promise}
    return tuple(sorted(set(limits) - kept))


def _check_choices(**options: tuple[str | None, *tuple[str | None, ...]]) -> None:
    for name, (given, *known) in options.items():
        if given not in known:
            listed = ", ".join(str(choice) for choice in known if choice)
            raise typer.BadParameter(f"{given!r} is none of {listed}", param_hint=f"--{name}")
