"""Leaving: whether removing the samples that have left a batch costs less than it saves."""

from collections.abc import Mapping
from dataclasses import dataclass

from offramp.bundle import BundleManifest, Times


@dataclass(frozen=True)
class Leaving:
    """What copying and computing one sample takes, where that was measured on this machine.

    Attributes:
        row_ms: After each stage, what copying one sample of what is alive takes.
        next_ms: What the stage that follows takes for one sample.
    """

    row_ms: Mapping[int, float]
    next_ms: Mapping[int, float]

    @classmethod
    def of(cls, manifest: BundleManifest, times: Times | None) -> "Leaving":
        """From a bundle's times on this machine; None if it has none."""
        if times is None or not times.row_ms:
            return cls({}, {})
        ms = {each.file: each.median_ms for each in times.parts if each.batch == 1}
        stages = {each.stage: ms.get(each.file) for each in manifest.stages if not each.without}
        after = {stage - 1: taken for stage, taken in stages.items() if taken is not None}
        return cls(dict(enumerate(times.row_ms)), after)

    def pays(self, stage: int, staying: int, total: int) -> bool:
        """Whether to copy those that stay, after a stage, and not compute the others any more.

        The samples that have left are computed by the next stage if they are not removed. Where
        nothing was measured they are removed.
        """
        if stage not in self.row_ms or stage not in self.next_ms:
            return True
        return staying * self.row_ms[stage] < (total - staying) * self.next_ms[stage]
