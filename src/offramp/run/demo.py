"""The demo: the plan that ships with the package, and what it prints."""

from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offramp.errors import DeadlineError
from offramp.policy import ExitPolicy
from offramp.report import Picture
from offramp.run.pictures import answered_pictures
from offramp.run.plan import Plan, load_plan
from offramp.run.results import RunResult, fixed_policy
from offramp.runtime.runtime import Runtime
from offramp.table import Table

_SHADES = " .:-=+*#%@"
_WIDTH = 28
_SEED, _SLACK = 0, 1.5


def demo_plan(overrides: Sequence[str] = ()) -> Plan:
    """The plan that `offramp demo` trains; shipped as `offramp/run/demo.yaml`."""
    with resources.as_file(resources.files("offramp.run") / "demo.yaml") as path:
        return load_plan(path, overrides)


def answers(result: RunResult, number: int) -> Iterator[Picture]:
    """Some test pictures of a run, drawn evenly over the classes, answered one by one."""
    test = result.plan.data.load(check=False).test
    policy = fixed_policy(result.model.names, result.plan.evaluate.threshold)
    return answered_pictures(result.model, test, number, policy)


def in_time(result: RunResult, bundle: Path, number: int) -> Table:
    """The same test pictures answered from a bundle, without torch, by ever longer deadlines.

    For each exit there is a deadline of half as much again as it is expected to need here.
    """
    some = result.plan.data.load(check=False).test.sample(number, _SEED)
    policy = fixed_policy(result.model.names, result.plan.evaluate.threshold)
    rows = []
    with Runtime(bundle) as runtime:
        deadlines = [_SLACK * needed for needed in runtime.needed_ms().values()]
        for index in range(len(some)):
            pixels, label = some[index]
            truth = result.model.info.class_names[label]
            for deadline in deadlines:
                found = _by_deadline(runtime, pixels.numpy(), policy, deadline)
                rows.append([truth, f"{deadline:.1f}", *found])
    head = ["picture of", "deadline ms", "answer", "exit", "ms", "ended by"]
    return Table(head, rows)


def _by_deadline(
    runtime: Runtime, pixels: NDArray[np.float32], policy: ExitPolicy, deadline_ms: float
) -> list[str]:
    """Answer, exit, milliseconds, and what ended the work."""
    try:
        answer = runtime.run(pixels, policy, deadline_ms=deadline_ms)
    except DeadlineError:  # on a busy machine
        return ["none in time", "", "", "the deadline"]
    ended = "the deadline" if answer.interrupted else "the policy"
    return [answer.text, answer.exit, f"{answer.total_ms:.1f}", ended]


def told(picture: Picture) -> str:
    """A picture in characters, with its answer beside it."""
    answer = picture.answer
    right = "right" if picture.is_right else f"wrong, it is {picture.truth}"
    facts = [
        f"{answer.text} ({right})",
        f"exit       {answer.exit}",
        f"confidence {picture.confidence:.3f}",
        f"spent      {answer.flops / 1e6:.1f} MFLOP",
        f"saved      {answer.flops_saved:.1%} of the whole backbone",
    ]
    lines = zip_longest(sketch(picture.image), facts, fillvalue="")
    return "\n".join(f"  {line:<{_WIDTH}}   {fact}".rstrip() for line, fact in lines)


def sketch(image: NDArray[np.uint8]) -> list[str]:
    """Lines of characters that show an (H, W) picture. Characters are twice as high as wide."""
    step = max(1, image.shape[1] // _WIDTH)
    cells = image[::step, ::step].astype(int) * (len(_SHADES) - 1) // 255
    return ["".join(_SHADES[cell] for cell in row) for row in cells[::2]]
