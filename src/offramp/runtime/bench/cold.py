"""Cold start: how long the first answer takes in a new process, and the memory that it needs."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offramp.answering.walk import full_network
from offramp.errors import BundleError
from offramp.machine import memory_in_use
from offramp.progress import Progress
from offramp.record import Record
from offramp.runtime.bench.ways import straight_to
from offramp.runtime.engines import open_engine
from offramp.runtime.runtime import Runtime


@dataclass(frozen=True)
class ColdStart(Record):
    """The first answer of one exit in a process that has imported its libraries, and no more.

    Attributes:
        exit: Name of the exit.
        lazy: Whether graphs were loaded when they were needed, not all at once.
        open_ms: Time to open the bundle.
        first_ms: Time of the first answer after that.
        growth_bytes: Largest memory until then, less that before the bundle was opened; None if
            the system does not say.
    """

    exit: str
    lazy: bool
    open_ms: float
    first_ms: float
    growth_bytes: int | None


def cold_starts(runtime: Runtime, progress: Progress) -> Iterator[ColdStart]:
    """One process for each exit, with all graphs loaded at once and with `lazy`.

    Raises:
        BundleError: The bundle is not in a folder, or such a process failed.
    """
    folder, engine = runtime.bundle.folder, runtime.parts.engine
    if folder is None:
        raise BundleError("a cold start needs a bundle in a folder, and this one is in memory.")
    names = runtime.facts.names
    cases = [(exit, lazy) for lazy in (False, True) for exit in range(len(names))]
    for done, (exit, lazy) in enumerate(cases, 1):
        given = [
            str(folder), runtime.engine, engine.precision, engine.threads, exit, lazy
        ]  # fmt: skip
        command = [sys.executable, "-m", __name__, json.dumps(given)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise BundleError(f"the process that measures a cold start failed: {reason}")
        yield ColdStart(exit=names[exit], lazy=lazy, **json.loads(ended.stdout))
        progress("cold starts", done, len(cases))


def _measured(
    folder: str, engine: str, precision: str, threads: int, exit: int, lazy: bool
) -> dict[str, float | int | None]:
    """What this process needs for its first answer."""
    open_engine(engine, precision, threads).close()  # imports the library
    before, began = memory_in_use(), time.perf_counter()
    with Runtime(
        Path(folder), engine=engine, precision=precision, threads=threads, lazy=lazy
    ) as runtime:
        opened = time.perf_counter()
        facts = runtime.facts
        sample = tuple(np.zeros(each.shape, each.dtype) for each in facts.inputs)
        runtime.run(sample, straight_to(full_network(facts.task, facts.names), exit))
        ended, after = time.perf_counter(), memory_in_use()
    return {
        "open_ms": 1000 * (opened - began),
        "first_ms": 1000 * (ended - opened),
        "growth_bytes": None if before is None or after is None else after[1] - before[0],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measured(*json.loads(sys.argv[1]))))
