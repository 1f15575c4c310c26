"""Features: the taps of a data set, computed once and read many times, or computed as needed."""

from offramp.features.cache import FeatureCache
from offramp.features.extraction import Taps
from offramp.features.live import LiveTaps
from offramp.features.tap import CacheDtype, bytes_per_sample
from offramp.features.workers import Workers, start_workers

__all__ = [
    "CacheDtype",
    "FeatureCache",
    "LiveTaps",
    "Taps",
    "Workers",
    "bytes_per_sample",
    "start_workers",
]
