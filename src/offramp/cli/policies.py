"""Verbs that read a run's outputs: tradeoff, calibrate, simulate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from offramp.cli.notices import note
from offramp.cli.showing import (
    POLICY,
    STARTS_OVER,
    AsJson,
    outputs_file,
    save_policy,
    show,
    stopping,
)
from offramp.errors import PlanError

if TYPE_CHECKING:
    from offramp.calibration import Calibration
    from offramp.evaluation.quality import Quality
    from offramp.outputs import ExitOutputs
    from offramp.policy import ExitPolicy
    from offramp.storage.folder import Contents

Outputs = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run folder (its test split), or an .npz of outputs."),
]
CalibrationOutputs = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run folder (its calibration split), or an .npz of outputs."
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="A policy or menu that `offramp calibrate` wrote.",
        show_default="policy.json of the run",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")]
Setting = TypeVar("Setting")
_TEST = "outputs/test.npz"


def tradeoff(outputs: Outputs, as_json: AsJson = False) -> None:
    """Show accuracy against compute, one line per exit."""
    from offramp.evaluation import tradeoff as place
    from offramp.outputs import ExitOutputs

    show(place(ExitOutputs.load(outputs_file(outputs))), as_json)


@stopping(STARTS_OVER)
def calibrate(
    outputs: CalibrationOutputs,
    max_drop: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE", help="Accuracy may fall by this; 0.01 is a point. Repeat for a menu."
        ),
    ] = None,
    max_disagreement: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Answers that may differ from those of the final exit."),
    ] = None,
    max_rise: Annotated[
        float | None,
        typer.Option(metavar="ERROR", help="Regression: the mean absolute error may rise by this."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="COST", help="Mean cost per sample, in units of --cost; promises no accuracy."
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(metavar="P", help="Probability that the promise holds, 0 to 1.")
    ] = 0.95,
    score: Annotated[
        str,
        typer.Option(
            metavar="SCORE", help="max_softmax, entropy, margin, patience, agreement or given."
        ),
    ] = "max_softmax",
    cost: Annotated[Literal["flops", "ms"], typer.Option(help="The cost to save.")] = "flops",
    method: Annotated[
        Literal["ltt", "ucb"], typer.Option(help="ltt tests each candidate, ucb bounds its risk.")
    ] = "ltt",
    within: Annotated[
        Literal["class", "group"] | None,
        typer.Option(help="Keep the promise within each class or each group."),
    ] = None,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Fit a temperature for each exit first.")
    ] = False,
    loss_bound: Annotated[
        float | None,
        typer.Option(metavar="ERROR", help="With --max-rise: clip the rise of one sample at this."),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write the policy.",
            show_default="policy.json, in the run if RUN is one",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose thresholds that keep a promise, or report that none do."""
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
    rate: Annotated[float, typer.Option(metavar="R", help="Requests per second.")],
    deadline_ms: Annotated[
        float,
        typer.Option(metavar="MS", help="Time from sending a request until its answer arrives."),
    ],
    policy: PolicyFile = None,
    arrivals: Annotated[
        Literal["fixed", "poisson", "bursts"], typer.Option(help="How requests arrive.")
    ] = "poisson",
    burst_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests in a burst, with --arrivals bursts.")
    ] = 10,
    uplink_ms: Annotated[
        float, typer.Option(metavar="MS", help="Median time that sending a request takes.")
    ] = 0.0,
    downlink_ms: Annotated[
        float, typer.Option(metavar="MS", help="Median time that sending an answer takes.")
    ] = 0.0,
    jitter: Annotated[
        float,
        typer.Option(metavar="SIGMA", help="Spread of these two times: a lognormal's sigma."),
    ] = 0.0,
    requests: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of requests to simulate.")
    ] = 100_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate requests with a deadline, from measured stage times."""
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

    rows, policies = with_policies(outputs, "test", policy)
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


def with_policies(
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
    except PlanError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        wrong = error.__cause__.errors()[0]
        name = str(wrong["loc"][0])
        raise typer.BadParameter(
            f"{values[name]:g}: {wrong['msg']}", param_hint=options[name]
        ) from None
