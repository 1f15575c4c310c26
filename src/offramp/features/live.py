"""Live taps: computed when they are needed and not stored, but rounded as in a cache."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.backbones.staged import StagedBackbone
from offramp.data import Batch, Samples
from offramp.errors import OfframpError
from offramp.features.executor import Executor
from offramp.features.extract import (
    Scales,
    find_scales,
    formats,
    statistics_of,
)
from offramp.features.keys import digest_of, key_parts, origin_of
from offramp.features.source import Taps, TapSource
from offramp.features.taps import CacheDtype, TapFormat
from offramp.progress import Progress
from offramp.storage.atomic import make_folder, write_bytes

Statistics = Mapping[str, tuple[tuple[Tensor, Tensor], ...]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LiveTaps:
    """Taps of some cuts straight from the backbone.

    They are rounded like a cache of the same data, so that branches train on the same numbers,
    except that the batch size may change the backbone's last bits.

    Attributes:
        parts: Everything that decides the taps, in clear.
    """

    source: TapSource
    forms: Mapping[str, tuple[TapFormat, ...]]
    known: Statistics | None
    parts: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        backbone: StagedBackbone,
        data: Samples,
        root: Path,
        *,
        cuts: Sequence[str],
        statistics: bool,
        dtype: CacheDtype,
        device: torch.device,
        executor: Executor,
        progress: Progress,
    ) -> Self:
        """Find the scales from the training data, or read from `root` what was found before.

        With `statistics` every sample runs through the backbone once, otherwise a few hundred do.

        Raises:
            DataError: A tap holds a value that is not finite.
            BundleError: The folder cannot be created.
        """
        wanted = tuple(name for name in backbone.cuts if name in cuts)
        parts = key_parts(backbone, data, wanted, None, dtype, device)
        key = digest_of(parts)
        path = make_folder(root) / f"{key[:16]}-statistics.json"
        source = TapSource.of(backbone, wanted, device, executor)
        scales, known = _read(path, key) or (None, None)
        if scales is None or (statistics and known is None):
            scales = scales or find_scales(source, data, dtype, progress)
            known = statistics_of(source, data, scales, dtype, progress) if statistics else None
            _write(path, key, scales, known)
        return cls(source, formats(source, scales, dtype), known, parts)

    @property
    def cuts(self) -> tuple[str, ...]:
        """Whose taps are given."""
        return tuple(self.source.shapes)

    @property
    def device(self) -> torch.device:
        """Device of the backbone and of the taps."""
        return self.source.device

    def origin(self, cut: str) -> dict[str, Any]:
        """Everything that decides the taps at one cut, as `FeatureCache.origin`."""
        return origin_of(self.parts, cut, self.source.way)

    def statistics(self, cut: str) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mean and standard deviation (C,) over the training samples of each tap at a cut.

        Raises:
            OfframpError: They were not asked for.
        """
        if self.known is None:
            raise OfframpError(
                "these live taps were made without statistics. Make them with statistics=True."
            )
        return self.known[cut]

    def taps(self, dataset: Samples, rows: NDArray[np.int64]) -> Taps:
        """Taps of these samples: each (B, ...) float32, a map with its channels last in memory.

        Raises:
            DataError: A sample or a tap is not finite, or a tap too large for fp16.
        """
        size = self.source.batch_size
        passes = [self._rounded(batch) for batch in dataset.batches(size, order=rows)]
        return {
            name: tuple(torch.cat(parts) for parts in zip(*(p[name] for p in passes), strict=True))
            for name in self.source.shapes
        }

    def _rounded(self, batch: Batch) -> Taps:
        found, absent = self.source.taps_of(batch)
        return {
            name: tuple(
                form.rounded(tap, batch.rows, lacking)
                for form, tap, lacking in zip(self.forms[name], taps, absent[name], strict=True)
            )
            for name, taps in found.items()
        }


def _read(path: Path, key: str) -> tuple[Scales, Statistics | None] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] != key:
            return None
        scales = {name: tuple(map(torch.tensor, taps)) for name, taps in found["scales"].items()}
        known = found["statistics"] and {
            name: tuple((_float64(mean), _float64(std)) for mean, std in taps)
            for name, taps in found["statistics"].items()
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s cannot be read (%s). It will be recomputed.", path, error)
        return None
    return scales, known


def _write(path: Path, key: str, scales: Scales, known: Statistics | None) -> None:
    listed: dict[str, Any] | None = None
    if known is not None:
        listed = {
            name: [[mean.tolist(), std.tolist()] for mean, std in taps]
            for name, taps in known.items()
        }
    scaled = {name: [scale.tolist() for scale in taps] for name, taps in scales.items()}
    content = {"key": key, "scales": scaled, "statistics": listed}
    write_bytes(path, json.dumps(content).encode())


def _float64(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
