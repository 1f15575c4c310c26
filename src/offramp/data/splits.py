"""The splits a data kind loads: train, validation, calibration and test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from offramp.data.samples import Samples
from offramp.doubts import STAND_IN_DOUBT, doubts_of_sources, warn_of
from offramp.errors import DataError, ExtraError, OfframpError, ShapeError
from offramp.preprocess import Preprocess
from offramp.progress import Progress, silent
from offramp.task import Task

LIMIT_SEED = 0
SPLIT_NAMES = ("train", "validation", "calibration", "test")
SPLIT_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}
_NAMED = 5  # faults that an error lists; it counts the others


@dataclass(frozen=True, eq=False)
class Splits:
    """Samples in three or four parts that share none.

    Attributes:
        train: Trains the branches.
        validation: Stops training early and picks the best branch.
        calibration: Sets exit thresholds; seen by no training step. None if the data has no
            such part, like most published splits; policies cannot be calibrated then.
        test: Read once, for the final table.
        target_names: One name per class number, or the name of the value for regression.
        inputs: What prepares each input of a sample, the same for all parts; empty if samples
            come prepared.
        task: What the targets are.
        origin: Where the data lies, for messages.
        skipped: Files that could not be read and were left out, with the reason.
        stand_in: Whether the files only stand in for a published data set, so that nothing
            measured on them is a result.
        doubts: Warnings about these splits, besides that files are stand-ins.
    """

    train: Samples
    validation: Samples
    calibration: Samples | None
    test: Samples
    target_names: tuple[str, ...]
    inputs: tuple[Preprocess, ...] = ()
    task: Task = "classification"
    origin: str = ""
    skipped: tuple[str, ...] = ()
    stand_in: bool = False
    doubts: tuple[str, ...] = ()

    @classmethod
    def of(cls, parts: Mapping[str, Samples], **facts: Any) -> Self:
        """Splits from a mapping of split name to samples; `facts` are the other attributes."""
        train, validation, test = (parts[name] for name in ("train", "validation", "test"))
        return cls(train, validation, parts.get("calibration"), test, **facts)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(samples):,} {name}" for name, samples in self.named().items())
        names = ", ".join(self.target_names[:_NAMED]) + ", ..." * (len(self.target_names) > _NAMED)
        return f"Splits({sizes}" + f"; {self.task} of {names}" * bool(names) + ")"

    def named(self) -> dict[str, Samples]:
        """Samples of each split that exists, by its name, in order."""
        found = {"train": self.train, "validation": self.validation}
        if self.calibration is not None:
            found["calibration"] = self.calibration
        return {**found, "test": self.test}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is kept with everything measured on these splits: stand-in files and `doubts`."""
        return (*[STAND_IN_DOUBT] * self.stand_in, *self.doubts)

    def doubting_sources(self, **words: str) -> Self:
        """The same splits with a warning if train shares sources with others, which it issues.

        Args:
            words: `remark` of `doubts_of_sources`, if a kind of data has one of its own.
        """
        clusters = {name: samples.clusters for name, samples in self.named().items()}
        found = doubts_of_sources(clusters, self.doubts, **words)
        warn_of(found, stacklevel=4)  # for who loads the data
        return replace(self, doubts=(*self.doubts, *found))

    def check_inputs(self) -> None:
        """Refuse samples that `inputs` would not have prepared, since new ones would not fit.

        Raises:
            ShapeError: Their shapes or numbers of inputs differ.
        """
        wanted = tuple(each.shape for each in self.inputs)
        for name, samples in self.named().items() if wanted else ():
            found = samples.input_shapes
            known = [shape for shape, here in zip(wanted, found, strict=False) if here]
            if len(found) != len(wanted) or known != [here for here in found if here]:
                raise ShapeError(
                    f"the {name} samples have inputs of shape {_listed(found)}, and the "
                    f"preprocessing in `inputs` of these splits makes {_listed(wanted)}. New files "
                    "would be prepared by it for a network that never saw such inputs. Give the "
                    "preprocessing that made the samples, or leave `inputs` out."
                )

    def check(self, progress: Progress = silent) -> None:
        """Read every sample that lies in a file once, so that all bad ones are known at once.

        Raises:
            DataError: Files cannot be read or have changed since they were loaded; it names some.
            ExtraError: The library that decodes them is not installed.
        """
        in_files = [s for s in self.named().values() if s.source.may_fail]
        total, done = sum(map(len, in_files)), 0
        faults: list[str] = []
        for samples in in_files:
            for row in range(len(samples)):
                progress("checking files", done, total)
                done += 1
                try:
                    samples.read([row])
                except ExtraError:
                    raise
                except OfframpError as error:
                    name = row if samples.ids is None else samples.ids[row]
                    faults.append(f"{name}: {error.__cause__ or error}")
        progress("checking files", total, total)
        refuse_unreadable(faults, total, self.origin)


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(str(shape) for shape in shapes)


def refuse_unreadable(faults: Sequence[str], total: int, origin: str) -> None:
    """Refuse files that cannot be read, of which `faults` has one line each.

    Raises:
        DataError: There are any; it names the first few.
    """
    if faults:
        raise DataError(
            f"{len(faults)} of {total} files in {origin} cannot be read:\n{first_few(faults)}\n"
            "Repair or remove them, or leave them out with `on_corrupt: skip` if this kind of data "
            "has that setting."
        )


def first_few(faults: Sequence[str]) -> str:
    """The first faults, a line each, and how many more there are."""
    more = [f"and {len(faults) - _NAMED} more"] if len(faults) > _NAMED else []
    return "\n".join(f"  {line}" for line in [*faults[:_NAMED], *more])


def thinned(samples: Samples, limit: int | None) -> Samples:
    """At most `limit` samples, drawn at random but evenly over the classes; all if None."""
    return samples if limit is None else samples.sample(limit, LIMIT_SEED)
