"""RunData: the data of a run, loaded once, when it is first needed."""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Generic

from offramp.data import PythonData, Splits
from offramp.data.location import located, paths_of
from offramp.data.python_file import splits_from
from offramp.errors import DataError, PlanError
from offramp.progress import Progress
from offramp.run.plan import AnyPlan
from offramp.storage.atomic import make_folder, write_bytes

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
