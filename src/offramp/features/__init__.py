"""Features: the taps of a data set, computed once and read many times, or computed as needed."""

from offramp.features.cache import FeatureCache, missing_bytes
from offramp.features.executor import Executor, start_executor
from offramp.features.live import LiveTaps
from offramp.features.source import Taps
from offramp.features.taps import CacheDtype, bytes_per_sample

__all__ = [
    "CacheDtype",
    "Executor",
    "FeatureCache",
    "LiveTaps",
    "Taps",
    "bytes_per_sample",
    "missing_bytes",
    "start_executor",
]
