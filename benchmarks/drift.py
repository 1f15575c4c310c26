"""Does the watch keep its rate of false alarms, and how soon does it find a shift of 5 points?

    python benchmarks/drift.py [--smoke] [--streams 1000] [--answers 100000] [--rate 0.01]
                               [--workers N] [--json PATH]

False alarms: each of `streams` draws a reference and a stream of `answers` from the same mix, and
shadow answers for one answer in a hundred. The rate holds for both kinds of alarm together. With
rate 0.01 and 1,000 streams, 10 alarms are allowed; the exit code says whether there were no more.

Dependence: the same for streams in which each answer is repeated, with and without looking at one
in so many answers; and in how many of them the watch warned.

Delays: the first answer already comes from the shifted mix, or the first one after 20,000 that
did not. Each has a new reference. The aim is a median of at most 2,000 answers from
5,000 reference samples on, in every mix; `50/50` and the middle exit are the hardest.
"""

import argparse
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.drift import Alarm, DependenceWarning, Watch, watch
from offramp.machine import environment
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score

AIM_ANSWERS, AIM_REFERENCE = 2000, 5000
SHADOWS = 100  # one answer in so many
DISAGREEMENT = 0.03
GIVE_UP = 20_000
REPEATED = ((2, 1), (5, 1), (2, 2), (5, 5))
"""Runs of so many equal answers, and one answer in so many that is looked at."""
MIXES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "two exits, 50 to 45": ((0.5, 0.5), (0.45, 0.55)),
    "two exits, 80 to 75": ((0.8, 0.2), (0.75, 0.25)),
    "three, first 34 to 29": ((0.34, 0.33, 0.33), (0.29, 0.33, 0.38)),
    "three, middle 35 to 40": ((0.4, 0.35, 0.25), (0.375, 0.4, 0.225)),
    "four, first 40 to 35": ((0.4, 0.3, 0.2, 0.1), (0.35, 0.3, 0.2, 0.15)),
    "four, second 40 to 35": ((0.3, 0.4, 0.2, 0.1), (0.3, 0.35, 0.25, 0.1)),
}


@dataclass(frozen=True)
class Delay:
    """Answers from a shift to its alarm, over draws of reference and stream."""

    mix: str
    reference: int
    after: int
    median: float
    low: float
    high: float
    p90: float
    not_found: int
    draws: int


def main() -> int:
    """Count false alarms, measure delays, print a line for each, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="some short streams, no verdict")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=100_000, help="in each null stream")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    streams, answers = (20, 5000) if args.smoke else (args.streams, args.answers)
    draws = 20 if args.smoke else 400
    started = time.perf_counter()
    with ProcessPoolExecutor(args.workers) as pool:
        alarms = list(pool.map(partial(null_alarms, answers, args.rate), range(streams)))
        false = false_alarms(alarms, answers, args.rate)
        print(false_told(false), flush=True)
        dependent = []
        for length, every in REPEATED:
            one = partial(repeated_alarm, answers, args.rate, length, every)
            found = list(pool.map(one, range(streams // 10)))
            dependent.append(repeated(length, every, found))
            print(repeated_told(dependent[-1]), flush=True)
        delays = []
        for after, references in ((0, (2000, 5000, 10_000)), (20_000, (5000,))):
            for reference in references:
                for mix in MIXES:
                    delay = partial(delay_of, mix, reference, after, args.rate)
                    waits = np.array(list(pool.map(delay, range(draws))))
                    delays.append(judged(mix, reference, after, waits))
                    print(delay_told(delays[-1]), flush=True)
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s")
    if args.json is not None:
        record = {
            "machine": environment("cpu", threads=torch.get_num_threads()),
            "smoke": args.smoke,
            "false_alarms": false,
            "dependent": dependent,
            "delays": [asdict(row) for row in delays],
            "seconds": round(seconds, 1),
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    judged_rows = [d for d in delays if d.after == 0 and d.reference >= AIM_REFERENCE]
    kept = false["alarms"] <= false["allowed"] and all(
        row.median <= AIM_ANSWERS for row in judged_rows
    )
    return 0 if args.smoke or kept else 1


def drawn_watch(
    mix: Sequence[float],
    samples: int,
    rate: float,
    random: np.random.Generator,
    every: int = 1,
) -> Watch:
    """A watch whose reference is drawn from this mix."""
    exits = len(mix)
    leaves = random.choice(exits, samples, p=mix)
    differ = random.random(samples) < DISAGREEMENT
    scores = (np.arange(exits)[:, np.newaxis] >= leaves).astype(np.float64)
    final = np.zeros(samples, np.int64)
    early = np.where(differ & (leaves < exits - 1), 1, 0)
    reference = ExitOutputs(
        outputs=np.eye(2, dtype=np.float32)[np.stack([*[early] * (exits - 1), final])],
        labels=final,
        stage_flops=np.ones(exits, np.int64),
        branch_flops=np.array([1] * (exits - 1) + [0]),
        scores=scores,
    )
    policy = ExitPolicy(
        score=find_score("given"), thresholds=(1.0,) * (exits - 1), names=tuple(reference.names)
    )
    return watch(reference, policy, rate=rate, every=every, seed=int(random.integers(2**32)))


def stream(
    mix: Sequence[float], answers: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Exits of answers, and whether the shadow answers among them disagree."""
    exits = random.choice(len(mix), answers, p=mix)
    shadows = exits[random.random(answers) < 1 / SHADOWS]
    return exits, (random.random(len(shadows)) < DISAGREEMENT) & (shadows < len(mix) - 1)


def null_alarms(answers: int, rate: float, seed: int) -> list[str]:
    """Kinds of the alarms in one stream without drift; mixes and reference sizes take turns."""
    random = np.random.default_rng([1, seed])
    mix, _ = list(MIXES.values())[seed % len(MIXES)]
    samples = (500, 2000, 5000, 10_000)[seed // len(MIXES) % 4]
    watched = drawn_watch(mix, samples, rate, random)
    return [alarm.kind for alarm in watched.update(*stream(mix, answers, random))]


def repeated_alarm(
    answers: int, rate: float, length: int, every: int, seed: int
) -> tuple[bool, bool]:
    """Whether a stream of repeated answers gave an alarm, and whether the watch warned."""
    random = np.random.default_rng([3, seed, length])
    mix, _ = list(MIXES.values())[seed % len(MIXES)]
    watched = drawn_watch(mix, AIM_REFERENCE, rate, random, every)
    exits, _ = stream(mix, answers // length, random)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", DependenceWarning)
        alarms = watched.update(np.repeat(exits, length))
    return bool(alarms), bool(warned)


def repeated(length: int, every: int, found: Sequence[tuple[bool, bool]]) -> dict[str, int]:
    """How many streams of repeated answers gave an alarm or a warning."""
    alarms, warned = np.sum(found, axis=0).tolist()
    return {
        "length": length,
        "every": every,
        "streams": len(found),
        "alarms": alarms,
        "warned": warned,
    }


def repeated_told(row: dict[str, int]) -> str:
    """One line for the terminal."""
    return (
        f"no drift, each answer {row['length']} times, one in {row['every']} looked at: "
        f"{row['alarms']} of {row['streams']} streams gave an alarm, {row['warned']} a warning"
    )


def delay_of(name: str, reference: int, after: int, rate: float, seed: int) -> float:
    """Answers from the shift to the alarm; infinite where none comes, NaN for one too early."""
    random = np.random.default_rng([2, seed, reference, after])
    before, shifted = MIXES[name]
    watched = drawn_watch(before, reference, rate, random)
    if in_mix(watched.update(stream(before, after, random)[0])):
        return math.nan
    while watched.answers < after + GIVE_UP:
        found = in_mix(watched.update(stream(shifted, 1000, random)[0]))
        if found:
            return found[0].answers - after
    return math.inf


def in_mix(alarms: Sequence[Alarm]) -> list[Alarm]:
    """Those of a changed exit mix."""
    return [alarm for alarm in alarms if alarm.kind == "exit mix"]


def false_alarms(alarms: Sequence[list[str]], answers: int, rate: float) -> dict[str, Any]:
    """How many streams gave an alarm, and how many may."""
    streams = len(alarms)
    return {
        "streams": streams,
        "answers": answers,
        "rate": rate,
        "alarms": sum(map(bool, alarms)),
        "exit_mix": sum("exit mix" in kinds for kinds in alarms),
        "disagreement": sum("disagreement" in kinds for kinds in alarms),
        "allowed": streams * rate,
    }


def judged(mix: str, reference: int, after: int, delays: NDArray[np.float64]) -> Delay:
    """Median with a 95 % bootstrap interval; alarms before the shift are left out.

    One that is not found counts as GIVE_UP, which JSON can hold.
    """
    kept = np.sort(delays[~np.isnan(delays)])
    draws = np.random.default_rng(0).integers(len(kept), size=(2000, len(kept)))
    medians = np.quantile(kept[draws], 0.5, axis=1, method="higher")
    median, p90 = np.quantile(kept, [0.5, 0.9], method="higher").tolist()
    low, high = np.quantile(medians, [0.025, 0.975], method="higher").tolist()
    missing = int(np.isinf(kept).sum())
    median, p90, low, high = np.minimum([median, p90, low, high], GIVE_UP).tolist()
    return Delay(mix, reference, after, median, low, high, p90, missing, len(kept))


def false_told(false: dict[str, Any]) -> str:
    """One line for the terminal."""
    return (
        f"no drift: {false['alarms']} of {false['streams']} streams of {false['answers']} answers "
        f"gave an alarm ({false['exit_mix']} exit mix, {false['disagreement']} disagreement); "
        f"stated rate {100 * false['rate']:g} %"
    )


def delay_told(row: Delay) -> str:
    """One line for the terminal."""
    return (
        f"{row.mix}, {row.reference} reference samples, shift after {row.after}: median "
        f"{row.median:.0f} [{row.low:.0f}, {row.high:.0f}] answers, 90 % within {row.p90:.0f}, "
        f"{row.not_found} of {row.draws} not within {GIVE_UP}"
    )


if __name__ == "__main__":
    sys.exit(main())
