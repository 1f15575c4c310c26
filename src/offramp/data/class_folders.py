"""ClassFolders: files in one folder per class, checked in full before anything is trained."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from offramp.data.drawing import RandomSplit
from offramp.data.layout import list_split, list_unsplit
from offramp.data.listed import ListedFiles
from offramp.data.listing import Listing
from offramp.errors import DataError
from offramp.preprocess.media import Medium


class ClassFolders(ListedFiles):
    """Files as root/SPLIT/CLASS/name, or root/CLASS/name with `split`.

    SPLIT is train, validation (or val), calibration or test. If there are only train and val, the
    other splits are drawn from val; if only train and test, from test.

    Attributes:
        root: The folder.
        split: Shares to draw if the folder is not split; None if it is.
        source: Regular expression with one group, searched in each file's path below `root`; what
            the group matches names the sample's source, such as a film, a speaker or a patient.
            Samples of one source are drawn into one split, and promises count sources, not samples.
    """

    root: Path
    split: RandomSplit | None = None
    source: str | None = None

    @field_validator("source")
    @classmethod
    def _one_group(cls, source: str | None) -> str | None:
        try:
            groups = 1 if source is None else re.compile(source).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"needs one group in parentheses, and has {groups}")
        return source

    @property
    @abstractmethod
    def medium(self) -> Medium:
        """Which files to read."""

    def listing(self) -> Listing:
        """See ListedFiles; classes are numbered in the order of their names, or of `classes`."""
        root = self.root.expanduser()
        lists = list_split if self.split is None else list_unsplit
        files = lists(root, self.medium, self.classes)
        class_names = self.classes or tuple(sorted({file.class_name for file in files}))
        number = {name: place for place, name in enumerate(class_names)}
        ids = np.array([file.path.relative_to(root).as_posix() for file in files], np.str_)
        sources, missed = self._sources(ids)
        if len(missed) == len(ids) or self.on_corrupt == "raise":
            self._refuse(missed, len(ids))
        return Listing(
            root,
            self.paths_of([file.path for file in files]),
            ids,
            np.array([number[file.class_name] for file in files], np.int64),
            class_names,
            self.split or np.array([file.split for file in files], np.str_),
            sources=sources,
        )

    def paths_of(self, files: Sequence[Path]) -> NDArray[np.object_]:
        """Paths (N, I) of all inputs of the samples with these files (N)."""
        return np.array(files, object)[:, None]

    def check_kept(self, kept: Listing) -> None:
        """See ListedFiles: only now is it known which files can be read, and need a source."""
        self._refuse(self._sources(kept.ids)[1], len(kept))

    def _sources(self, ids: NDArray[np.str_]) -> tuple[NDArray[np.str_] | None, list[str]]:
        """The source (N,) of each file, if `source` says what it is, and the files without one."""
        if self.source is None:
            return None, []
        found = [re.search(self.source, name) for name in ids]
        missed = [str(name) for name, match in zip(ids, found, strict=True) if match is None]
        return np.array([match[1] if match else "" for match in found], np.str_), missed

    def _refuse(self, missed: Sequence[str], total: int) -> None:
        if missed:
            raise DataError(
                f"`source` ({self.source}) matches nothing in {len(missed)} of {total} paths, "
                f"such as {missed[0]}. Change the expression, or leave it out."
            )
