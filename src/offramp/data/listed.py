"""ListedFiles: checking, drawing and loading of samples whose files some kind of data lists."""

import hashlib
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt, field_validator

from offramp.data.drawing import (
    HeldOut,
    RandomSplit,
    complete,
    drawn,
    matching,
    pool_of,
    warn_of_training,
)
from offramp.data.listing import Listing
from offramp.data.prepared import joined_digests
from offramp.data.samples import Samples, Source
from offramp.data.sound_fit import SoundFit
from offramp.data.splits import SPLIT_NAMES, Splits, refuse_unreadable, thinned
from offramp.doubts import doubts_of_classes, warn_of
from offramp.errors import DataError, ExtraError
from offramp.preprocess import Preprocess
from offramp.progress import Progress, silent
from offramp.spec import Spec
from offramp.table import counted

_log = logging.getLogger(__name__)
_NAMED = 3  # samples that a warning names; it counts the others


class ListedFiles(Spec):
    """How listed files are checked and divided, the same for every kind of data with files.

    Attributes:
        held_out: Shares to draw from the held-out samples if some splits have none.
        trained_on: Folders, or patterns of paths such as `*/2023-*`, whose samples the backbone
            was trained on; a warning says if calibration or test samples are among them.
        classes: Names of the classes in the backbone's order; None takes those that exist, in
            the order of their names. A split may lack a class that is listed here.
        on_corrupt: "raise" refuses the data when a file cannot be read; "skip" leaves such
            samples out, with a warning for each.
        limit: Number of samples kept of each split, for a quick trial; drawn at random, but
            each class keeps its share.
    """

    held_out: HeldOut = HeldOut()
    trained_on: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    on_corrupt: Literal["raise", "skip"] = "raise"
    limit: PositiveInt | None = None

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len({*classes}) < len(classes):
            raise ValueError("names a class twice")
        return classes

    @property
    @abstractmethod
    def inputs(self) -> tuple[Preprocess, ...]:
        """Preprocessing of each input of the backbone."""

    @abstractmethod
    def listing(self) -> Listing:
        """The files, none of them opened."""

    @abstractmethod
    def as_source(self, listed: Listing, digests: NDArray[np.str_]) -> Source:
        """Listed samples as a source; `digests` (N, I) are those of their files."""

    def check_kept(self, kept: Listing) -> None:
        """Check what only matters for samples that are used, not for those that are left out."""

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """List and hash every file; files are decoded whenever they are read.

        Args:
            progress: Called after each sample.
            check: Decode every file once now, see `Splits.check`.

        Raises:
            DataError: The listing is wrong, classes differ between splits, a file cannot be read
                (unless skipped), or nothing is left of a split or class.
            ExtraError: The library that decodes the files is not installed.
        """
        listed = self.listing()
        files, of_files, skipped = self._hashed(listed, progress)
        self.check_kept(files)
        digests = joined_digests([*of_files.T])
        splits = self._divided(files, listed.there, digests)
        _check_present(files, splits, listed.there, all_classes=self.classes is None)
        _warn_of_shared(files, splits, digests)
        warn_of_training(splits, digests, matching(files.ids, self.trained_on))
        doubts = _lacking(files, splits)
        warn_of(doubts)
        samples = Samples.of(
            self.as_source(files, of_files),
            ids=files.ids,
            groups=files.groups,
            clusters=files.sources,
        )
        found = Splits.of(
            {
                name: thinned(samples.subset(np.flatnonzero(splits == name)), self.limit)
                for name in SPLIT_NAMES
            },
            target_names=files.target_names,
            inputs=self.inputs,
            task=files.task,
            origin=str(files.origin),
            skipped=skipped,
            stand_in=files.stand_in,
            doubts=doubts,
        ).doubting_sources()
        if check and self.on_corrupt == "raise":
            found.check(progress)
        return found

    def _divided(
        self, files: Listing, there: set[str], digests: NDArray[np.str_]
    ) -> NDArray[np.str_]:
        """The split (N,) of each file; those that are not `there` are drawn."""
        facts = digests, files.strata, files.sources
        if isinstance(files.splits, RandomSplit):
            return drawn(files.splits.shares, files.splits.seed, *facts)
        return complete(files.splits, there, self.held_out, *facts)

    def _hashed(
        self, listed: Listing, progress: Progress
    ) -> tuple[Listing, NDArray[np.str_], tuple[str, ...]]:
        """The samples to use, SHA-256 (N, I) of their files, and a line on each that is skipped."""
        good: list[int] = []
        digests: list[list[str]] = []
        faults: list[str] = []
        fit = SoundFit(self.inputs)
        for row, paths in enumerate(listed.paths):
            progress("reading files", row, len(listed))
            try:
                digests.append(self._digests(paths, fit))
                good.append(row)
            except ExtraError:
                raise
            except Exception as error:  # decoders raise many kinds
                faults.append(f"{listed.ids[row]}: {error}")
        progress("reading files", len(listed), len(listed))
        if self.on_corrupt == "raise":
            refuse_unreadable(faults, len(listed), str(listed.origin))
        for fault in faults:
            _log.warning("left out, since it cannot be read: %s", fault)
        for line in fit.lines():
            _log.info("%s: %s", listed.origin, line)
        found = np.array(digests, np.str_).reshape(len(good), listed.paths.shape[1])
        return listed.kept(good), found, tuple(faults)

    def _digests(self, paths: Sequence[Path], fit: SoundFit) -> list[str]:
        """SHA-256 of a sample's files, which are decoded first if bad ones are to be skipped."""
        contents = [path.read_bytes() for path in paths]
        if self.on_corrupt == "skip":
            for content, prepare in zip(contents, self.inputs, strict=True):
                prepare(content)
        fit.add(contents)
        return [hashlib.sha256(content).hexdigest() for content in contents]


def _check_present(
    files: Listing, splits: NDArray[np.str_], there: Set[str], *, all_classes: bool
) -> None:
    counts = Counter(splits.tolist())
    empty = [name for name in SPLIT_NAMES if not counts[name]]
    if empty:
        raise DataError(f"{', '.join(empty)} would be empty: {_why_empty(files, there, {*empty})}")
    unseen = files.untrained(splits) if all_classes else []
    if unseen:
        raise DataError(
            f"no sample of {', '.join(unseen)} in {files.origin} is left to train on. Add "
            "samples of the class, or remove it."
        )


def _lacking(files: Listing, splits: NDArray[np.str_]) -> tuple[str, ...]:
    """Warnings about classes that some splits lack since samples of a source stay together."""
    if files.sources is None or files.task != "classification" or files.stand_in:
        return ()
    rows = {name: splits == name for name in SPLIT_NAMES}
    labels = {name: files.targets[each] for name, each in rows.items()}
    sources = {name: files.sources[each] for name, each in rows.items()}
    return doubts_of_classes(labels, sources, files.target_names)


def _why_empty(files: Listing, there: Set[str], empty: Set[str]) -> str:
    """How much there is to draw splits from, whole sources at a time, and what to do."""
    rows, where, shares = np.ones(len(files), bool), "", "split"
    if not isinstance(files.splits, RandomSplit):
        pool, missing = pool_of(there), {*SPLIT_NAMES} - there
        if not missing or empty - missing - {pool}:  # not for want of something to draw from
            return f"{files.origin} has {len(files)} samples that can be read. Add samples."
        rows, where, shares = files.splits == pool, f" in {pool}", "held_out"
    found = f"{files.origin} has {counted(int(rows.sum()), 'sample')}"
    change = f"or change the shares of `{shares}`."
    if files.sources is None:
        return f"{found}{where} that can be read. Add samples, {change}"
    number = counted(len(np.unique(files.sources[rows])), "source")
    return (
        f"{found} of {number}{where} that can be read, and samples of one source stay together. "
        f"Add samples of other sources, {change}"
    )


def _warn_of_shared(files: Listing, splits: NDArray[np.str_], digests: NDArray[np.str_]) -> None:
    """Warn if a sample is in several splits, since results on it would look too good."""
    pairs = {*zip(splits.tolist(), digests.tolist(), strict=True)}
    counts = Counter(digest for _, digest in pairs)
    shared = sorted(digest for digest, count in counts.items() if count > 1)
    if shared:
        named = [" = ".join(files.ids[digests == digest].tolist()) for digest in shared[:_NAMED]]
        number = "1 sample is" if len(shared) == 1 else f"{len(shared)} samples are"
        _log.warning(
            "%s: %s in more than one split, so results there look too good: %s%s. Keep each in "
            "one split.",
            *(files.origin, number, ", ".join(named), ", ..." if len(shared) > _NAMED else ""),
        )
