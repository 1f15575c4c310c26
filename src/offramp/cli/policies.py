"""Verbs that read a run's outputs: tradeoff, calibrate, simulate, watch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from offramp.cli.answers import read_answers
from offramp.cli.notices import note
from offramp.cli.showing import (
    POLICY,
    STARTS_OVER,
    AsJson,
    AsJsonLines,
    outputs_file,
    save_policy,
    show,
    show_line,
    stopping,
)
from offramp.cli.streams import alert, put
from offramp.errors import OfframpError, PlanError

if TYPE_CHECKING:
    from offramp.calibration import Calibration
    from offramp.drift import Alarm, Watch
    from offramp.evaluation.quality import Quality
    from offramp.outputs import ExitOutputs
    from offramp.policy import ExitPolicy
    from offramp.storage.folder import Contents

Outputs = Annotated[Path, typer.Argument(help="A run folder, or one of its outputs/*.npz.")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Default: policy.json in the run folder.")
]
Setting = TypeVar("Setting")
_TEST = "outputs/test.npz"


def tradeoff(outputs: Outputs, as_json: AsJson = False) -> None:
    """Show accuracy against compute, one line per exit."""
    from offramp.evaluation import tradeoff as place
    from offramp.outputs import ExitOutputs

    show(place(ExitOutputs.load(outputs_file(outputs))), as_json)


@stopping(STARTS_OVER)
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
    cost: Annotated[Literal["flops", "ms"], typer.Option(help="What is saved.")] = "flops",
    method: Annotated[
        Literal["ltt", "ucb"], typer.Option(help="Test each candidate, or bound its risk.")
    ] = "ltt",
    within: Annotated[
        Literal["class", "group"] | None,
        typer.Option(help="Keep the promise in each class, or in each group."),
    ] = None,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Fit a temperature per exit first.")
    ] = False,
    loss_bound: Annotated[
        float | None, typer.Option(help="What single rises of --max-rise are clipped at.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split into order and test samples.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Default: policy.json, in the run folder if it is one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose thresholds that keep a promise with stated confidence, or say that none do."""
    given = dict(locals())
    from offramp.calibration import Request, calibrations
    from offramp.calibration.budget import budgeted
    from offramp.policy import PolicyMenu

    limits = tuple(max_drop or ()) or None
    given["max_drop"] = limits[0] if limits and len(limits) == 1 else limits
    request = Request.of(**{name: given[name] for name in Request.model_fields})
    rows, run = _read(outputs, "calibration", _TEST)
    found: tuple[Calibration, ...] = ()
    if request.budget is not None:
        policies = [budgeted(rows, request.budget, score=request.score, cost=request.cost)]
    else:
        found = calibrations(rows, request)
        policies = [each.policy for each in found]
    menu = PolicyMenu.of(policies, request.limits) if request.is_menu else None
    path = save_policy(out, run, menu or policies[0])
    declined = () if menu is None else menu.declined
    show(Fitted(found, tuple(policies), path, _test_quality(run, policies), declined), as_json)


@dataclass(frozen=True)
class Fitted:
    """Policies as fitted, where they were written, and how they do on the test split."""

    calibrations: "tuple[Calibration, ...]"
    policies: "tuple[ExitPolicy, ...]"
    path: Path
    test: "Quality | None"
    declined: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "policies": [policy.as_json() for policy in self.policies],
            "calibrations": [each.as_json() for each in self.calibrations],
            "test": self.test and [each.as_json() for each in self.test.policies],
            "declined": list(self.declined),
            "file": str(self.path),
        }

    def __str__(self) -> str:
        texts = list(map(str, self.calibrations or self.policies))
        texts += [f"not certified, so not on the menu: {limit:g}" for limit in self.declined]
        if self.test is not None:
            texts.append(str(self.test.policy_table()))
            for policy, table in zip(self.policies, self.test.part_tables(), strict=False):
                if policy.promise is not None and policy.promise.within:
                    texts.append(str(table))
            texts.append(f"These on the {self.test.samples} samples of the run's test split.")
        return "\n\n".join([*texts, f"written: {self.path}"])


def simulate(
    outputs: Outputs,
    rate: Annotated[float, typer.Option(help="Requests per second.")],
    deadline_ms: Annotated[float, typer.Option(help="From sending to the answer's arrival.")],
    policy: PolicyFile = None,
    arrivals: Annotated[
        Literal["fixed", "poisson", "bursts"], typer.Option(help="How requests arrive.")
    ] = "poisson",
    burst_size: Annotated[int, typer.Option(min=1, help="Requests in one burst.")] = 10,
    uplink_ms: Annotated[float, typer.Option(help="Median time of a request's way.")] = 0.0,
    downlink_ms: Annotated[float, typer.Option(help="Median time of an answer's way.")] = 0.0,
    jitter: Annotated[
        float, typer.Option(help="Spread of these times: sigma of a lognormal; 0 is none.")
    ] = 0.0,
    requests: Annotated[int, typer.Option(min=1, help="How many.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Of samples, arrivals and ways.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Play requests with a deadline against measured stage times, for every policy."""
    from offramp import simulation as sim

    if jitter and not (uplink_ms or downlink_ms):
        raise typer.BadParameter(
            "spreads --uplink-ms and --downlink-ms, and both are 0", param_hint="--jitter"
        )
    traffic: dict[str, Callable[..., sim.Arrivals]] = {
        "fixed": sim.FixedRate,
        "poisson": sim.Poisson,
        "bursts": partial(sim.Bursts, burst_size=burst_size),
    }

    def way(option: str, median_ms: float) -> "sim.Transmission":
        if jitter and median_ms:
            sources = {"median_ms": option, "sigma": "--jitter"}
            return _built(sim.Lognormal, sources, median_ms=median_ms, sigma=jitter)
        return _built(sim.Constant, {"ms": option}, ms=median_ms)

    rows, policies = _with_policies(outputs, "test", policy)
    result = sim.simulate(
        rows,
        _named(policies),
        arrivals=_built(traffic[arrivals], {"per_second": "--rate"}, per_second=rate),
        deadline_ms=deadline_ms,
        uplink=way("--uplink-ms", uplink_ms),
        downlink=way("--downlink-ms", downlink_ms),
        requests=requests,
        seed=seed,
    )
    show(result, as_json)
    note(f"simulated in {result.seconds:.1f} s")


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
    every: Annotated[
        int, typer.Option(min=1, help="Look at every k-th answer only, where neighbours depend.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of tie breaking.")] = 0,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """Watch a stream of answers for drift from the reference; exits with code 3 after an alarm."""
    from offramp.drift import watch as start

    reference, chosen = _with_policies(outputs, "calibration", policy)
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


def _read(outputs: Path, split: str, *others: str) -> "tuple[ExitOutputs, Contents | None]":
    """The outputs of a run on a split, and all that was read of it, in one state; or of a file."""
    from offramp.outputs import ExitOutputs
    from offramp.storage.folder import read_folder
    from offramp.storage.manifest import RUN

    if not outputs.is_dir():
        return ExitOutputs.load(outputs), None
    name = f"outputs/{split}.npz"
    run = read_folder(outputs, RUN, [name, *others])
    return ExitOutputs.load(run.files[name]), run


def _with_policies(
    outputs: Path, split: str, path: Path | None
) -> "tuple[ExitOutputs, tuple[ExitPolicy, ...]]":
    """Outputs, and the policies of a file: one, or those of a menu; the run's where None."""
    from offramp.policy import load_policies

    if path is None and not outputs.is_dir():
        raise PlanError("name the policy: --policy policy.json, as `offramp calibrate` wrote.")
    rows, run = _read(outputs, split, *([POLICY] if path is None else []))
    if path is None and run is not None:
        return rows, load_policies(run.files[POLICY])
    return rows, load_policies(path or outputs)


def _test_quality(run: "Contents | None", policies: "Sequence[ExitPolicy]") -> "Quality | None":
    """What policies do on the test split of a run, by the names of its classes."""
    from offramp.evaluation.quality import quality
    from offramp.outputs import ExitOutputs

    if run is None:
        return None
    rows = ExitOutputs.load(run.files[_TEST])
    return quality(rows, _named(policies), class_names=run.manifest["class_names"])


def _named(policies: "Sequence[ExitPolicy]") -> "dict[str, ExitPolicy]":
    """Each under a short name: its promise's limit, or what it is."""
    return {
        "budget" if each.promise is None else f"{each.promise.goal} {each.promise.limit}": each
        for each in policies
    }


def _built(make: Callable[..., Setting], options: dict[str, str], **values: float) -> Setting:
    """A setting; what it refuses is wrong usage of the option that each value came from."""
    from pydantic import ValidationError

    try:
        return make(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0])
        raise typer.BadParameter(
            f"{values[name]:g}: {wrong['msg']}", param_hint=options[name]
        ) from None
