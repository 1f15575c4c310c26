"""The extra `calibrate`: importing this module fails with its name where scipy is missing."""

from offramp.errors import ExtraError

try:
    import scipy  # noqa: F401
except ModuleNotFoundError as error:
    raise ExtraError(
        "calibrating and comparing exits needs scipy, which is not installed. Install it with: "
        "pip install 'offramp[calibrate]'. Answering with a finished bundle does not need it."
    ) from error
