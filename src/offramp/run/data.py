"""RunData: the data of a run, loaded once, when it is first needed."""

import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic

from offramp.answering import ModelFacts
from offramp.data import PythonData, Samples, Splits
from offramp.data.location import located, paths_of
from offramp.data.python_file import splits_from
from offramp.errors import DataError, PlanError
from offramp.progress import Progress
from offramp.run.names import PLAN, PLAN_ENDINGS
from offramp.run.plan import AnyPlan, load_plan
from offramp.storage.atomic import make_folder, write_bytes

_NAMED = 5  # classes that an error names
CHECKED = "checked.json"
"""File in the work folder with the keys of data that was checked in full."""


class RunData(Generic[AnyPlan]):
    """The data of a run, given or named by its plan.

    Attributes:
        plan: The plan, with absolute paths of its data.
    """

    def __init__(
        self,
        plan: AnyPlan,
        splits: Splits | None = None,
        data_file: str | None = None,
        data_root: str | Path | None = None,
    ) -> None:
        """Arguments are those of `offramp.run.steps.train`.

        Raises:
            PlanError: Some of the arguments exclude each other.
        """
        if data_file is not None and splits is not None:
            raise PlanError("data_file and splits both give the data. Leave one of them out.")
        if data_file is not None and not isinstance(plan.data, PythonData):
            raise PlanError(
                f"--data {data_file} gives the data, but the plan already gives data of kind "
                f"{plan.data.kind!r}. Leave out --data, or write `data: {{kind: python}}` in the "
                "plan."
            )
        self.plan = plan.model_copy(update={"data": located(plan.data, data_root)})
        self._given, self._function = splits, data_file

    @cached_property
    def splits(self) -> Splits:
        """The splits, loaded but not decoded.

        Raises:
            DataError: The data is missing, damaged or of another form.
            PlanError: The plan's data is `python`, but no function is given, or the function fails.
            ShapeError: Samples of your own are not what their preprocessing makes.
        """
        given = self._given
        if self._function is not None:
            given = splits_from(self._function, self.plan.task)
        if given is not None:
            given.check_inputs()
            return given.doubting_sources()
        for path in paths_of(self.plan.data).values():
            if not os.path.exists(path):  # noqa: PTH110  (pathlib's raises on some paths)
                raise DataError(
                    f"{path}, where the data of the plan should be, is missing or cannot be read. "
                    "Correct the path, or give the folder that the data has moved to with "
                    "--data-root (in Python: data_root=)."
                )
        return self.plan.data.load(check=False)


def splits_for(
    place: str, facts: ModelFacts, data_root: str | Path | None = None
) -> dict[str, Samples]:
    """The calibration samples, if there are some, and the test samples, for an exported model.

    Args:
        place: A plan, a run, or a function `file.py:function` that returns the splits.
        facts: Facts of the model.
        data_root: Where the data is now, if it has moved.

    Raises:
        PlanError: There is no such plan or function.
        DataError: The data cannot be read, or has other classes or another preprocessing.
    """
    path = Path(place)
    if path.is_dir() or path.suffix.lower() in PLAN_ENDINGS:
        plan = load_plan(path / PLAN if path.is_dir() else path)
        splits = RunData(plan, None, None, data_root).splits
    else:
        splits = splits_from(place, facts.task)
    _check_fitting(splits, facts, place)
    every = splits.named()
    return {name: every[name] for name in ("calibration", "test") if name in every}


def _check_fitting(splits: Splits, facts: ModelFacts, place: str) -> None:
    """Refuse samples of other classes or another preprocessing than the model's."""
    different = []
    if splits.task != facts.task:
        different.append(f"its task is {splits.task}, and the bundle's {facts.task}")
    names = splits.target_names, facts.class_names
    if all(names) and names[0] != names[1]:
        different.append(f"its classes are {_some(names[0])}, and the bundle's {_some(names[1])}")
    inputs = splits.inputs, facts.preprocess
    if all(inputs) and inputs[0] != inputs[1]:
        different.append("it prepares files in another way than the bundle")
    if different:
        raise DataError(
            f"the data of {place} does not fit the bundle: {'; '.join(different)}. Give the plan "
            "or the run that the bundle was exported from, or a folder of classes."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + ", ..." * (len(names) > _NAMED)


def data_keys(splits: Splits) -> dict[str, str]:
    """Hashes that identify samples, labels and preprocessing of each split."""
    return {name: images.content_key for name, images in splits.named().items()}


def check_files(splits: Splits, work: Path, progress: Progress) -> None:
    """Find all damaged files before training starts; a resumed run does not check again.

    Raises:
        DataError: Files cannot be read or have changed since they were loaded; it names some.
    """
    keys = json.dumps(data_keys(splits)).encode()
    known = work / CHECKED
    if known.exists() and known.read_bytes() == keys:
        return
    splits.check(progress)
    write_bytes(make_folder(work) / CHECKED, keys)
