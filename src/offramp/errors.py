"""The errors offramp raises on purpose; catch `OfframpError` to catch them all."""

from typing import Any


class OfframpError(Exception):
    """An error the user can fix; the message says what happened and what to do."""


class OfframpWarning(UserWarning):
    """Something that works but may not be what the user wants; the message says what to check."""


class ArgumentError(OfframpError, TypeError):
    """An argument is an object of another kind than the function takes."""


class CutError(OfframpError):
    """A backbone cannot be cut as asked."""


class ShapeError(OfframpError):
    """A shape, size or count does not fit another one."""


class DataError(OfframpError):
    """A data set is missing, damaged or does not fit the model."""


class KindError(DataError):
    """Files are sounds where the kind of data reads pictures, or the reverse."""


class ExtraError(DataError):
    """A library that this needs is not installed; the message names the extra."""


class ExportError(OfframpError):
    """A network cannot be written as an ONNX graph; the message says which part and why."""


class PlanError(OfframpError, ValueError):
    """A plan or a setting is wrong; all mistakes found are listed."""


class BundleError(OfframpError):
    """A stored model, run or cache is damaged, stale or for another model."""


class DeadlineError(OfframpError, TimeoutError):
    """No answer can be given in the time allowed."""


class NoPolicyError(OfframpError):
    """No policy with an active early exit keeps the promise that was asked for.

    Attributes:
        closest: The ExitPolicy nearest to being certified, without a promise; None where no
            thresholds save anything at all.
        num_samples_needed: Estimated number of calibration samples needed to certify this request
            with 80 % probability; None if no number would suffice.
        num_clusters_needed: Estimated number of clusters that these samples have to be of, where
            samples are in clusters; else None.
    """

    def __init__(
        self,
        text: str,
        *,
        closest: Any = None,
        num_samples_needed: int | None = None,
        num_clusters_needed: int | None = None,
    ) -> None:
        super().__init__(text)
        self.closest = closest
        self.num_samples_needed = num_samples_needed
        self.num_clusters_needed = num_clusters_needed
