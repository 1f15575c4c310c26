"""Features on disk: the taps of a data set, computed once and read many times."""

from offramp.features.cache import FeatureCache
from offramp.features.tap import CacheDtype
from offramp.features.workers import Workers, start_workers

__all__ = ["CacheDtype", "FeatureCache", "Workers", "start_workers"]
