"""Features: the taps of a data set, computed once and read many times, or computed as needed."""

from offramp.features.cache import FeatureCache, missing_bytes, sample_bytes
from offramp.features.executor import Executor, start_executor
from offramp.features.live import LiveTaps
from offramp.features.source import Taps
from offramp.features.taps import CacheDtype

__all__ = [
    "CacheDtype",
    "Executor",
    "FeatureCache",
    "LiveTaps",
    "Taps",
    "missing_bytes",
    "sample_bytes",
    "start_executor",
]
