"""Bench: what exits cost and save on this machine, and whether they pay."""

from offramp.runtime.bench.measured import BATCHES, REPEATS, bench_bundle
from offramp.runtime.bench.result import Bench
from offramp.runtime.bench.verdict import Verdict, judged

__all__ = ["BATCHES", "REPEATS", "Bench", "Verdict", "bench_bundle", "judged"]
