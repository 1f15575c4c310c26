"""Features on disk: the taps of a data set, computed once and read many times."""

from offramp.features.cache import FeatureCache
from offramp.features.tap import CacheDtype

__all__ = ["CacheDtype", "FeatureCache"]
