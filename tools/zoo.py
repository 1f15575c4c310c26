"""Cut the classification models of torchvision and timm, and check what the guide promises.

    python tools/zoo.py                        # all of torchvision's, one timm model per family
    python tools/zoo.py --only timm:resnet10t --json
    python tools/zoo.py --limit 10 --jobs 1

Each model (random weights, a small input where it takes one) runs in a process of its own, with a
limit of time and memory. It is listed, cut at three places (the suggested ones, else spread over
the graph), and compared: the stages with the model bit for bit, the taps with themselves after the
later stages have run, the FLOPs with torch's own counter. Results are lines of JSON in `--out`; a
model that has a line there is not run again, so an interrupted run resumes. About 270 models take
some 20 minutes on two cores.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import multiprocessing
import re
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from offramp.backbones.libraries import LIBRARIES
from offramp.backbones.places import Place
from offramp.backbones.staged import StagedBackbone, cut
from offramp.backbones.zoo import architecture
from offramp.compute import count_flops, torch_switches
from offramp.errors import OfframpError
from offramp.survey import Survey, survey_model

SHARES = (0.25, 0.5, 0.75)
SIZES = (64, 96, 128, 160, 192, 224, 256)
MOST_PARAMS = 150_000_000
"""Of a timm model; of torchvision's all are run."""
SMALL = (
    *(
        "test",
        "atto",
        "femto",
        "pico",
        "zepto",
        "nano",
        "t0",
        "xxt",
        "xt",
        "mt",
        "t",
        "tiny",
        "wee",
    ),
    *("pwee", "xxsmall", "xxs", "xsmall", "xs", "mini", "little", "s0", "s1", "b0", "m0", "a0"),
    *("l0", "n", "small", "s"),
)
LARGE = ("medium", "m", "b", "base", "large", "l", "xlarge", "huge", "h", "giant", "g", "so150m")


def main() -> None:
    """Run what has no result yet, then print the table and the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/zoo.jsonl"), help="result lines")
    parser.add_argument("--only", action="append", metavar="NAME", help="repeatable")
    parser.add_argument("--limit", type=int, help="so many models, evenly spread over the list")
    parser.add_argument("--jobs", type=int, default=2, help="models at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=120, help="limit per model")
    parser.add_argument("--gigabytes", type=float, default=6, help="limit per model")
    parser.add_argument("--json", action="store_true", help="print totals and rows as JSON")
    args = parser.parse_args()
    names = args.only or _spread(model_names(), args.limit)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = _read(args.out)
    waiting = [name for name in names if name not in done]
    with args.out.open("a", encoding="utf-8") as lines, ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(lambda name: run_apart(name, args.seconds, args.gigabytes), waiting):
            done[row["name"]] = row
            print(json.dumps(row), file=lines, flush=True)
            if not args.json:
                print(_line(row), flush=True)
    rows = [done[name] for name in names]
    if args.json:
        print(json.dumps({"totals": totals(rows), "models": rows}))
    else:
        print("\n".join(summary(rows)))


def model_names() -> list[str]:
    """All of torchvision's classification models and the smallest timm model of each family.

    A family is the module that defines it and the letters that its name begins with.
    """
    families: dict[tuple[str, str], list[str]] = {}
    for name in timm.list_models():
        letters = re.match(r"(tf_)?[a-z]+", name)
        family = (model_entrypoint(name).__module__, letters[0] if letters else name)
        families.setdefault(family, []).append(name)
    smallest = sorted(min(members, key=_size_by_name) for members in families.values())
    return [
        *(f"torchvision:{name}" for name in LIBRARIES["torchvision"].names()),
        *(f"timm:{name}" for name in smallest),
    ]


def _size_by_name(name: str) -> tuple[int, list[int], str]:
    """Small models first, as far as names tell: building 1,300 would take longer than the check."""
    words = set(re.split(r"[^a-z0-9]", name))
    small = [SMALL.index(word) for word in words if word in SMALL]
    large = [len(SMALL) + 1 + LARGE.index(word) for word in words if word in LARGE]
    rank = min(small, default=max(large, default=len(SMALL)))
    return rank, [int(number) for number in re.findall(r"\d+", name)], name


def _spread(names: list[str], limit: int | None) -> list[str]:
    step = 1 if limit is None else max(1, len(names) // limit)
    return names[::step][:limit]


def run_apart(name: str, seconds: float, gigabytes: float) -> dict[str, Any]:
    """The row of one model, from a process that may fail, hang or run out of memory."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(name, gigabytes, sender), daemon=True)
    started = time.perf_counter()
    process.start()
    sender.close()
    try:
        row = receiver.recv() if receiver.poll(seconds) else {"error": f"over {seconds:g} s"}
    except EOFError:
        row = {"error": "the process died, most likely out of memory"}
    process.join(0 if "error" in row else 10)  # let it end by itself where it can
    process.kill()
    process.join()
    return {"name": name, **row, "seconds": round(time.perf_counter() - started, 1)}


def _report(name: str, gigabytes: float, sender: Any) -> None:
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(1)
    try:
        row = check(name)
    except Exception as error:
        kind = type(error).__name__
        row = {"error": f"{kind}: {str(error).strip().partition(chr(10))[0]}"}
    sender.send(row)


def check(name: str) -> dict[str, Any]:
    """List, cut, run and count one model."""
    # as the stages: torch takes other kernels where a weight asks for gradients
    model = _unlike_fresh(_build(name)).requires_grad_(False)
    images, expected = _small_input(name, model)
    found = survey_model(model, images[:1], name=name)
    places, suggested = _three_places(found)
    backbone = cut(model, [place.name for place in places], images)
    equal, unchanged = _compare(backbone, images, expected)
    ours, theirs = count_flops(model, (images[:1],)), _torch_flops(model, images[:1])
    return {
        "size": images.shape[-1],
        "params": sum(weight.numel() for weight in model.parameters()),
        "places": len(found.cuts),
        "not_batch_first": sum(cut.place.axes[:1] != ("batch",) for cut in found.cuts),
        "maps": sum(cut.place.features is not None for cut in found.cuts),
        "cuts": list(backbone.cuts),
        "suggested": suggested,
        "suggested_not_maps": _not_maps(backbone, images) if suggested else 0,
        "suggested_inside_blocks": sum(not p.ends_block for p in places) if suggested else 0,
        "equal": equal,
        "taps_unchanged": unchanged,
        "flops": ours,
        "flops_listed": found.total_flops,
        "flops_torch": theirs,
    }


def _build(name: str) -> nn.Module:
    if name.startswith("timm:"):
        with torch.device("meta"):
            params = sum(weight.numel() for weight in timm.create_model(name[5:]).parameters())
        if params > MOST_PARAMS:
            raise OfframpError(f"left out, {params / 1e6:.0f} M parameters")
    return architecture(name)


def _unlike_fresh(model: nn.Module) -> nn.Module:
    """Give what starts as all zeros or ones values, so that answers depend on every layer."""
    generator = torch.Generator().manual_seed(2)
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        values = tensor.detach()
        if (
            values.is_floating_point()
            and values.numel()
            and bool((values == values.flatten()[0]).all())
        ):
            values.add_(torch.rand(values.shape, generator=generator), alpha=0.1)
    return model


@torch.no_grad()
def _small_input(name: str, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Two pictures of the smallest size that the model takes, and its answers."""
    library, _, plain = name.partition(":")
    config = get_pretrained_cfg(plain) if library == "timm" else None
    own = config.input_size[-1] if config else 224
    channels = config.input_size[0] if config else 3
    failures: list[str] = []
    for size in (*SIZES, own):
        images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))
        try:
            answers = model(images.clone())
        except Exception as error:
            failures.append(f"{size}: {str(error).strip().partition(chr(10))[0]}")
            continue
        if isinstance(answers, Tensor) and bool(answers.isfinite().all()):
            return images, answers
        failures.append(f"{size}: {type(answers).__name__} or not finite")
    raise OfframpError(f"takes no picture: {'; '.join(failures[-2:])}")


def _three_places(found: Survey) -> tuple[list[Place], bool]:
    try:
        return [each.place for each in found.suggest(SHARES).cuts], True
    except OfframpError:
        usable = [cut.place for cut in found.cuts if 0 < cut.place.flops_share < 1]
        quarter = max(1, len(usable) // 4)
        return usable[quarter::quarter][:3], False


@torch.no_grad()
def _compare(backbone: StagedBackbone, images: Tensor, expected: Tensor) -> tuple[bool, bool]:
    """Whether the stages give the model's answer, and whether what they handed out stays."""
    live: tuple[Tensor, ...] = (images,)
    given = [(images, _digest(images))]
    for stage in backbone.stages:
        live, taps = stage(live)
        given += [(tensor, _digest(tensor)) for tensor in (*live, *taps)]
    unchanged = all(_digest(tensor) == before for tensor, before in given)
    return bool(torch.equal(live[0], expected)), unchanged


@torch.no_grad()
def _not_maps(backbone: StagedBackbone, images: Tensor) -> int:
    """Taps whose third and fourth axes do not follow the height and width of the pictures.

    Real runs, so that it does not lean on what found the axes. A tap of a fixed size passes, and
    a model that takes pictures of one size alone shows nothing.
    """
    once = _taps(backbone, images)
    wide = _taps(backbone, images.repeat(1, 1, 1, 2))
    high = _taps(backbone, images.repeat(1, 1, 2, 1))
    return sum(
        one.ndim != 4 or one.shape[:3] != wider.shape[:3] or _but_third(one) != _but_third(higher)
        for one, wider, higher in zip(once, wide, high, strict=False)
    )


def _but_third(tensor: Tensor) -> tuple[int, ...]:
    return (*tensor.shape[:2], *tensor.shape[3:])


def _taps(backbone: StagedBackbone, images: Tensor) -> list[Tensor]:
    """As far as the model takes pictures of such a size."""
    found: list[Tensor] = []
    live: tuple[Tensor, ...] = (images,)
    for stage in list(backbone.stages)[:-1]:
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # where FX prints the failing line
                live, taps = stage(live)
        except Exception:
            break
        found += taps
    return found


def _torch_flops(model: nn.Module, image: Tensor) -> int:
    with (
        torch_switches(mha_fastpath=False),
        sdpa_kernel(SDPBackend.MATH),
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        model(image)
    return int(counter.get_total_flops())


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """What the rows say together."""
    ran = [row for row in rows if "error" not in row]
    return {
        "models": len(rows),
        "failed": len(rows) - len(ran),
        "equal": sum(row["equal"] for row in ran),
        "taps_unchanged": sum(row["taps_unchanged"] for row in ran),
        "flops_as_torch": sum(row["flops"] == row["flops_torch"] for row in ran),
        "flops_as_listed": sum(row["flops"] == row["flops_listed"] for row in ran),
        "places": sum(row["places"] for row in ran),
        "places_without_batch_first": sum(row["not_batch_first"] for row in ran),
        "models_with_such_places": sum(row["not_batch_first"] > 0 for row in ran),
        "suggested": sum(len(row["cuts"]) for row in ran if row["suggested"]),
        "suggested_not_maps": sum(row["suggested_not_maps"] for row in ran),
        "suggested_inside_blocks": sum(row["suggested_inside_blocks"] for row in ran),
    }


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A table, then the totals."""
    yield f"\n{'model':<42} {'size':>4} {'places':>6}  equal  taps  FLOPs / torch's  seconds"
    yield from map(_line, rows)
    yield ""
    for name, number in totals(rows).items():
        yield f"{name.replace('_', ' '):<28} {number:>7,}"


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['name']:<42} {row['error'][:110]}"
    share = row["flops"] / row["flops_torch"] if row["flops_torch"] else float("nan")
    equal, unchanged = ("yes" if row[key] else "NO" for key in ("equal", "taps_unchanged"))
    return (
        f"{row['name']:<42} {row['size']:>4} {row['places']:>6}  {equal:>5}  {unchanged:>4}  "
        f"{share:>15.4f}  {row['seconds']:>7}"
    )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {row["name"]: row for row in rows}


if __name__ == "__main__":
    main()
