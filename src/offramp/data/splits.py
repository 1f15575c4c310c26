"""The four splits a data kind loads: train, validation, calibration and test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from offramp.data.samples import Samples
from offramp.preprocess import ImagePreprocess

LIMIT_SEED = 0
SPLIT_NAMES = ("train", "validation", "calibration", "test")


@dataclass(frozen=True, eq=False)
class Splits:
    """Labelled images in four parts that share no image.

    Attributes:
        train: Trains the branches.
        validation: Stops training early and picks the best branch.
        calibration: Sets exit thresholds; seen by no training step.
        test: Read once, for the final table.
        class_names: One name per class number.
        preprocess: The same for all four.
        skipped: Files that could not be read and were left out, with the reason.
    """

    train: Samples
    validation: Samples
    calibration: Samples
    test: Samples
    class_names: tuple[str, ...]
    preprocess: ImagePreprocess
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        parts: Mapping[str, Samples],
        class_names: tuple[str, ...],
        preprocess: ImagePreprocess,
        skipped: tuple[str, ...] = (),
    ) -> Self:
        """Splits from a mapping of split name to images."""
        train, validation, calibration, test = (parts[name] for name in SPLIT_NAMES)
        return cls(train, validation, calibration, test, class_names, preprocess, skipped)

    def named(self) -> dict[str, Samples]:
        """Images of each split by its name, in order."""
        parts = (self.train, self.validation, self.calibration, self.test)
        return dict(zip(SPLIT_NAMES, parts, strict=True))


def thinned(samples: Samples, limit: int | None) -> Samples:
    """At most `limit` samples, drawn at random but evenly over the classes; all where None."""
    return samples if limit is None else samples.sample(limit, LIMIT_SEED)
