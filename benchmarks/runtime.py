"""The runtime against one ONNX graph of the whole network, against earlyon, and by deadlines.

    python benchmarks/runtime.py [--only staged exits peers deadlines memory] [--networks demo ...]
                                 [--pairs 200] [--requests 10000] [--threads N] [--json PATH]

Networks have random weights but for the demo's, and branches are the pooling baseline, so times
mean something and answers do not. Both sides of a pair run in turn, with the same settings; what
is reported is the median of their ratios with a 95 % bootstrap interval. `earlyon` gets the same
network, the same branches and the same thresholds. `deadlines` is also run beside a process that
keeps all cores busy.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from processes import in_new_process
from stages import kept, start_of_peak
from torch import Tensor, nn

from offramp.answering.walk import full_network
from offramp.backbones.staged import StagedBackbone, cut
from offramp.backbones.zoo import build, describe
from offramp.branches import ConvBranch
from offramp.bundle import Bundle
from offramp.compute import torch_switches
from offramp.errors import DeadlineError
from offramp.exporting.graph import onnx_graph
from offramp.exporting.making import Inputs, made_bundle
from offramp.machine import environment
from offramp.multiexit.facts import facts_of
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.policy import ExitPolicy, find_score
from offramp.progress import silent
from offramp.runtime.engines import open_engine
from offramp.runtime.runtime import Runtime
from offramp.spec import dims
from offramp.table import Table, bytes_text

PARTS = ("staged", "exits", "peers", "deadlines", "memory")
CUTS = {
    "demo": ("offramp:demo", ("blocks.1.1", "blocks.2.1", "blocks.4.1"), 112),
    "resnet152": ("torchvision:resnet152", ("layer1", "layer2"), 224),
    "paper:resnet152": ("paper:resnet152", (), 224),
    "paper:densenet201": ("paper:densenet201", (), 224),
    "paper:inceptionv3": ("paper:inceptionv3", (), 224),
}
BIG = ("paper:resnet152", "paper:densenet201", "paper:inceptionv3")
MIX = (0.4, 0.3, 0.3)
_DRAWS = 2000


@dataclass(frozen=True)
class Ratio:
    """One comparison: median of the ratios of pairs, with its interval.

    Attributes:
        what: What was divided by what.
        median: Of the ratios.
        low: End of the interval.
        high: End of the interval.
        pairs: Number of pairs.
        ms: Median milliseconds of both sides.
        goal: What was hoped for, in words.
    """

    what: str
    median: float
    low: float
    high: float
    pairs: int
    ms: tuple[float, float]
    goal: str = ""

    @classmethod
    def of(
        cls, what: str, one: Callable[[], Any], other: Callable[[], Any], pairs: int, goal: str = ""
    ) -> "Ratio":
        """Time both in turn; the ratio is the first by the second."""
        for _ in range(5):
            one(), other()
        times = np.array([[_ms(one), _ms(other)] for _ in range(pairs)])
        ratios = times[:, 0] / times[:, 1]
        draws = np.random.default_rng(0).choice(ratios, (_DRAWS, pairs))
        low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
        middle = np.median(times, axis=0).tolist()
        return cls(what, float(np.median(ratios)), low, high, pairs, (middle[0], middle[1]), goal)


def _ms(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def model_of(network: str) -> MultiExit:
    """A network with the pooling baseline at its cuts."""
    torch.manual_seed(0)
    name, places, size = CUTS[network]
    module = build(name, weights="none") if name != "offramp:demo" else build(name)
    after: Sequence[Any] = places or list(describe(name).cuts.values())
    backbone = cut(module.eval(), after, torch.zeros(1, 3, size, size))
    spec = ConvBranch(layers=0, pool="global")
    chosen = {
        each: Trial(each, spec, 0, _branch(spec, backbone, each), (), 1, 1.0, 1.0)
        for each in backbone.cuts
    }
    return MultiExit(backbone, chosen, tuple(chosen.values()))


def _branch(spec: ConvBranch, backbone: StagedBackbone, name: str) -> nn.Module:
    return spec.build(backbone.features(name), backbone.num_outputs).eval()


def bundle_of(model: MultiExit) -> Bundle:
    """Its bundle, in memory."""
    inputs = Inputs.of(facts_of(model), None)
    return made_bundle(model, inputs, ["onnxruntime"], silent, time.perf_counter)


class _Whole(nn.Module):
    """All stages as one module, folded as those of the bundle are."""

    def __init__(self, model: MultiExit) -> None:
        super().__init__()
        from offramp.backbones.folding import folded

        self.stages = nn.ModuleList([folded(stage) for stage in model.backbone.stages])  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        live: Any = (image,)
        for stage in self.stages:
            live, _ = stage(live)
        return (live[0],)


def whole_graph(model: MultiExit, threads: int | None) -> Any:
    """The whole network as one ONNX graph, in the same engine."""
    content = onnx_graph(_Whole(model), [_image(model)], ["image"], ["outputs"])
    return open_engine("onnxruntime", threads=threads).load(content)


def _image(model: MultiExit, rows: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(rows, *model.backbone.input_shapes[0], generator=draw)


def _through(runtime: Runtime, image: NDArray[Any], last: int, exit: str | None) -> None:
    """The stages up to `last`, and the branch of an exit."""
    live = runtime.parts.live([image])
    for stage in range(last + 1):
        live = runtime.parts.run_stage(stage, live, frozenset())
    if exit is not None:
        runtime.parts.run_branch(exit, live)


def staged(network: str, pairs: int, threads: int | None) -> list[Ratio]:
    """The stages in turn against one graph."""
    model = model_of(network)
    whole, image = whole_graph(model, threads), _image(model).numpy()
    goal = "at most 1.10" if network == "demo" else "at most 1.02"
    with Runtime(bundle_of(model), threads=threads) as runtime:
        last = len(runtime.parts.ends) - 1
        stages = Ratio.of(
            f"{network}: stages in turn / one graph",
            lambda: _through(runtime, image, last, None),
            lambda: whole.run([image]),
            pairs,
            goal,
        )
        call = Ratio.of(
            f"{network}: Runtime.run / one graph",
            lambda: runtime.run(image[0]),
            lambda: whole.run([image]),
            pairs,
        )
    return [stages, call]


def exits(network: str, pairs: int, threads: int | None) -> list[Ratio]:
    """Time to each exit against the whole, beside its share of the FLOPs."""
    model = model_of(network)
    image = _image(model).numpy()
    found = []
    with Runtime(bundle_of(model), threads=threads) as runtime:
        flops, branches = runtime.facts.flops(runtime.facts.names)
        last = len(flops) - 1
        for place, name in enumerate(runtime.facts.names[:-1]):
            share = (sum(flops[: place + 1]) + branches[place]) / sum(flops)
            found.append(
                Ratio.of(
                    f"{network}: time to {name} / whole",
                    partial(_through, runtime, image, place, name),
                    partial(_through, runtime, image, last, None),
                    pairs,
                    f"{share:.3f} of the FLOPs",
                )
            )
    return found


def peers(network: str, pairs: int, threads: int | None) -> list[Ratio]:
    """Earlyon with the same network, branches and thresholds, against ours."""
    model = model_of(network)
    images = _image(model, 96)
    policy = _mixing(model, images)
    rival = _earlyon(model, policy)
    goals = ("at least 3", "") if network == "demo" else ("at least 1.3", "")
    found = []
    with torch_switches(threads=threads), Runtime(bundle_of(model), threads=threads) as runtime:
        turn = [0]

        def sample() -> int:
            turn[0] = (turn[0] + 1) % len(images)
            return turn[0]

        arrays = [np.ascontiguousarray(each) for each in images.numpy()]
        found.append(
            Ratio.of(
                f"{network}: earlyon / ours, batch 1, exits {_text(MIX)}",
                lambda: rival(images[turn[0]][None]),
                lambda: runtime.run(arrays[sample()], policy),
                pairs,
                goals[0],
            )
        )
        found.append(
            Ratio.of(
                f"{network}: earlyon / ours, batch 32, exits {_text(MIX)}",
                lambda: rival.forward_inference_batched(images[:32]),
                lambda: runtime.run_batch(arrays[:32], policy),
                max(10, pairs // 8),
                "at least 2",
            )
        )
    return found


def _text(mix: Sequence[float]) -> str:
    return "/".join(f"{100 * share:.0f}" for share in mix)


def _mixing(model: MultiExit, images: Tensor) -> ExitPolicy:
    """Thresholds under which these samples leave at the first two exits and the last in MIX."""
    score = find_score("max_softmax")
    with torch.inference_mode():
        logits = model(images).numpy()
    first, second = (np.exp(x - x.max(-1, keepdims=True)) for x in logits[:2])
    scores = [(each / each.sum(-1, keepdims=True)).max(-1) for each in (first, second)]
    one = float(np.quantile(scores[0], 1 - MIX[0]))
    staying = scores[1][scores[0] < one]
    two = float(np.quantile(staying, 1 - MIX[1] / (1 - MIX[0])))
    others = (None,) * (len(model.names) - 3)
    return ExitPolicy(score=score, names=model.names, thresholds=(one, two, *others))


def _earlyon(model: MultiExit, policy: ExitPolicy) -> Any:
    from earlyon import EarlyExitConfig, EarlyExitWrapper, ExitPoint

    names = [f"e{place}" for place in range(len(model.chosen))]
    points = [
        ExitPoint(name, cut, dims(model.backbone.tap_shapes[cut][0])[0])
        for name, cut in zip(names, model.chosen, strict=True)
    ]
    config = EarlyExitConfig("bench", model.num_outputs, points)
    config.confidence_thresholds = [1.0 if t is None else t for t in policy.thresholds]
    config.enabled_exits = [t is not None for t in policy.thresholds]
    heads = {name: trial.branch for name, trial in zip(names, model.chosen.values(), strict=True)}
    shape = (1, *model.backbone.input_shapes[0])
    wrapped = EarlyExitWrapper(model.backbone.original, heads, nn.Identity(), config, shape)
    return wrapped.eval()


@dataclass(frozen=True)
class Overshoot:
    """How much later than the deadline answers left, in milliseconds.

    Attributes:
        where: Quiet or busy.
        requests: Number of requests.
        p50: Median; negative where answers leave before the deadline.
        p99: 99th percentile.
        most: The latest.
        interrupted: Share that the deadline cut short.
        refused: Share of requests that no exit could answer.
    """

    where: str
    requests: int
    p50: float
    p99: float
    most: float
    interrupted: float
    refused: float


def overshoot(requests: int, threads: int | None, where: str) -> Overshoot:
    """Deadlines drawn between the first exit's need and 1.5 times the whole network's."""
    model = model_of("demo")
    image, draw = _image(model).numpy()[0], np.random.default_rng(2)
    late, cut_short, refused = [], 0, 0
    with Runtime(bundle_of(model), threads=threads) as runtime:
        policy = full_network("classification", runtime.facts.names)
        needed = list(runtime.needed_ms().values())
        for deadline in draw.uniform(needed[0], 1.5 * needed[-1], requests).tolist():
            start = time.perf_counter()
            try:
                cut_short += runtime.run(image, policy, deadline_ms=deadline).interrupted
            except DeadlineError:
                refused += 1
            late.append(1000 * (time.perf_counter() - start) - deadline)
    p50, p99 = np.quantile(late, (0.5, 0.99)).tolist()
    shares = cut_short / requests, refused / requests
    return Overshoot(where, requests, p50, p99, max(late), *shares)


def deadlines(requests: int, threads: int | None) -> list[Overshoot]:
    """On a quiet machine, and beside a process that keeps all cores busy."""
    found = [in_new_process(overshoot, requests, threads, "quiet")]
    spawn = multiprocessing.get_context("spawn")
    neighbour = spawn.Process(target=_busy, daemon=True)
    neighbour.start()
    try:
        found.append(in_new_process(overshoot, requests, threads, "busy neighbour"))
    finally:
        neighbour.kill()
    return found


def _busy() -> None:
    """Multiply matrices with all cores, for good."""
    weight = torch.randn(700, 700)
    while True:
        weight = torch.tanh(weight @ weight)


def grown(network: str, which: str, threads: int | None) -> int:
    """Bytes that sessions take beyond the files they were read from, after an answer."""
    model = model_of(network)
    image = _image(model).numpy()
    if which == "one graph":
        content = onnx_graph(_Whole(model), [_image(model)], ["image"], ["outputs"])
        before = start_of_peak()
        open_engine("onnxruntime", threads=threads).load(content).run([image])
        return kept("VmRSS") - before
    bundle = bundle_of(model)
    before = start_of_peak()
    with Runtime(bundle, threads=threads, lazy=which == "first exit, lazy") as runtime:
        names = runtime.facts.names
        thresholds = (-1.0 if which == "first exit, lazy" else None,) + (None,) * (len(names) - 2)
        policy = ExitPolicy(score=find_score("max_softmax"), names=names, thresholds=thresholds)
        runtime.run(image[0], policy)
        return kept("VmRSS") - before


def memory(network: str, threads: int | None) -> list[tuple[str, int]]:
    """Growth of a process by sessions and one answer."""
    kinds = ("one graph", "stages", "first exit, lazy")
    return [(f"{network}: {kind}", in_new_process(grown, network, kind, threads)) for kind in kinds]


def ratio_table(ratios: Sequence[Ratio]) -> Table:
    """All ratios."""
    return Table.of(
        ("pairs run in turn", [each.what for each in ratios]),
        ("ratio", [f"{each.median:.3f}" for each in ratios]),
        ("95 %", [f"{each.low:.3f} to {each.high:.3f}" for each in ratios]),
        ("ms", [f"{each.ms[0]:.2f} / {each.ms[1]:.2f}" for each in ratios]),
        ("pairs", [str(each.pairs) for each in ratios]),
        ("goal", [each.goal or "-" for each in ratios]),
        left=1,
    )


def late_table(rows: Sequence[Overshoot]) -> Table:
    """Lateness of answers."""
    return Table.of(
        ("answers after their deadline", [each.where for each in rows]),
        ("p50 ms", [f"{each.p50:.2f}" for each in rows]),
        ("p99 ms", [f"{each.p99:.2f}" for each in rows]),
        ("most ms", [f"{each.most:.2f}" for each in rows]),
        ("cut short %", [f"{100 * each.interrupted:.1f}" for each in rows]),
        ("refused %", [f"{100 * each.refused:.1f}" for each in rows]),
        ("requests", [f"{each.requests:,}" for each in rows]),
        left=1,
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", nargs="+", choices=CUTS)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ratios: list[Ratio] = []
    work: Sequence[tuple[str, Callable[..., list[Ratio]], tuple[str, ...]]] = (
        ("staged", staged, ("demo", *BIG)),
        ("exits", exits, ("demo", *BIG)),
        ("peers", peers, ("demo", "resnet152")),
    )
    for part, measure, networks in work:
        for network in [n for n in given.networks or networks if n in networks]:
            if part in given.only:
                ratios += in_new_process(measure, network, given.pairs, given.threads)
                print(ratio_table(ratios[-3:]), flush=True)
    late = deadlines(given.requests, given.threads) if "deadlines" in given.only else []
    sizes = []
    for network in ("demo", "paper:resnet152") if "memory" in given.only else ():
        sizes += memory(network, given.threads)
    print("\n", ratio_table(ratios), "\n", late_table(late), sep="\n")
    print(
        Table.of(
            ("memory of sessions", [s for s, _ in sizes]), ("", [bytes_text(b) for _, b in sizes])
        )
    )
    if given.json is not None:
        facts = environment("cpu", given.threads or torch.get_num_threads())
        content = {
            "ratios": [asdict(each) for each in ratios],
            "overshoot": [asdict(each) for each in late],
            "memory": dict(sizes),
            "environment": facts,
        }
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
