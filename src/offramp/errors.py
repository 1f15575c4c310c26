"""The errors offramp raises on purpose; catch `OfframpError` to catch them all."""


class OfframpError(Exception):
    """Something the user can mend; its text says what happened and how."""


class CutError(OfframpError):
    """A backbone cannot be cut as asked."""


class ShapeError(OfframpError):
    """A shape, size or count does not fit another one."""


class DataError(OfframpError):
    """A data set is missing, damaged or does not fit the model."""


class PlanError(OfframpError, ValueError):
    """A plan or a setting is wrong; all mistakes found are listed."""


class BundleError(OfframpError):
    """A stored model, run or cache is damaged, stale or for another model."""


class DeadlineError(OfframpError, TimeoutError):
    """No answer can be given in the time allowed."""
