"""Location: the paths of a plan's data, which say where the data lies and not what it is."""

import os
from pathlib import Path

from offramp.data import DataSpec
from offramp.errors import PlanError


def paths_of(data: DataSpec) -> dict[str, Path]:
    """The settings that are paths, absolute, by their names."""
    return {name: _absolute(value) for name, value in data if isinstance(value, Path)}


def located(data: DataSpec, root: str | Path | None = None) -> DataSpec:
    """The same data with absolute paths, which name it from any working directory.

    Args:
        data: Relative paths start from the working directory.
        root: Folder that the data has moved to, in place of its `root`, or of the folder of its
            `file` if it has no `root`. A `file` in the old folder has moved with it.

    Raises:
        PlanError: A root is given for data that has none.
    """
    paths = paths_of(data)
    if root is None:
        return data.model_copy(update=paths)
    if "root" not in type(data).model_fields:
        raise PlanError(
            f"data_root is {str(root)!r}, but the plan names no folder for data of kind "
            f"{data.kind!r}. Leave out --data-root."
        )
    old = paths.get("root") or (paths["file"].parent if "file" in paths else None)
    new = _absolute(root)
    moved = {
        name: new / path.relative_to(old)
        for name, path in paths.items()
        if old is not None and path.is_relative_to(old)
    }
    return data.model_copy(update={**paths, "root": new, **moved})


def _absolute(path: str | Path) -> Path:
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111  (pathlib's raises)
