"""The demo: the plan that ships with the package, and its story in the terminal."""

from collections.abc import Iterator, Sequence
from importlib import resources

from offramp.run.answer import OneAnswer, answer_one_by_one, shows_pictures
from offramp.run.plan import Plan, load_plan
from offramp.run.results import PICTURES_SEED, RunResult


def demo_plan(overrides: Sequence[str] = ()) -> Plan:
    """The plan that `offramp demo` trains; shipped as `offramp/run/demo.yaml`."""
    with resources.as_file(resources.files("offramp.run") / "demo.yaml") as path:
        return load_plan(path, overrides)


def answers(result: RunResult, pictures: int) -> Iterator[OneAnswer]:
    """Some test images of a run, drawn evenly over the classes, answered one by one."""
    test = result.plan.data.load(check=False).test
    if pictures == 0 or not shows_pictures(result.model, test):
        return
    some = test.sample(pictures, PICTURES_SEED)
    yield from answer_one_by_one(
        result.model, some, range(len(some)), result.plan.evaluate.threshold
    )
