"""Job: one call of `fit_branches`, from its checked arguments to trained branches."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from offramp.backbones.staged import StagedBackbone
from offramp.branches import BranchSpec
from offramp.branches.tap import Standardise
from offramp.compute import seeded
from offramp.data.augment import views_of
from offramp.data.samples import Samples
from offramp.features import Executor, FeatureCache, LiveTaps, bytes_per_sample
from offramp.multiexit.trial import Trial
from offramp.progress import Progress
from offramp.spec import dims
from offramp.training.checks import Probes, Split
from offramp.training.learner import Learner, TrialName
from offramp.training.ledger import Ledger
from offramp.training.lockstep import Bench, train_together
from offramp.training.objective import Objective
from offramp.training.settings import TrainSettings
from offramp.training.supply import LiveSupply, StoredSupply, Supply
from offramp.training.way import Allowed, Needs, Way, choose_way, recall_way, remember_way

_STATES_OF_A_WEIGHT = 5  # itself, its gradient, two moments of Adam, its best


class _Source(Protocol):
    """What knows the training taps as a whole."""

    def statistics(self, cut: str) -> tuple[tuple[Tensor, Tensor], ...]: ...


@dataclass(frozen=True, eq=False)
class _Round:
    """Branches at some cuts that train side by side, and what on."""

    source: _Source
    origins: Sequence[Any]
    train: Supply
    validation: Supply


@dataclass(frozen=True, eq=False)
class Job:
    """One call of `fit_branches`, its arguments checked."""

    backbone: StagedBackbone
    branches: Mapping[str, Sequence[BranchSpec]]
    probes: Probes
    settings: TrainSettings
    objective: Objective
    device: torch.device
    root: Path
    workers: Executor
    curves: bool
    progress: Progress

    def run(self, train: Split, validation: Split) -> list[Trial]:
        """Choose the way, then train every branch."""
        way = self._way(train, validation)
        self.progress(str(way), 1, 1)
        rounds = self._cached if way.how == "cached" else self._fused
        return [
            learner.trial()
            for each in rounds(train, validation)
            for learner in self._train(each, way)
        ]

    def _way(self, train: Split, validation: Split) -> Way:
        """The way of an earlier call for the same taps goes on, whatever is free by now."""
        settings = self.settings
        needs = Needs(self._bytes_on_disk(train, validation), self._bytes_in_memory())
        about = settings.model_dump(mode="json", include={"how", "augment"})
        about |= {"cuts": sorted(self.branches), "bytes": needs.disk}
        way = recall_way(self.root, about)
        if way is None:
            allowed = Allowed.here(self.root, settings.disk_gb, settings.memory_gb)
            way = choose_way(settings.how, needs, allowed, settings.augment)
            remember_way(self.root, about, way)
        return way

    def _bytes_on_disk(self, train: Split, validation: Split) -> int:
        views = 1 if self.settings.augment is None else self.settings.augment.views or 1
        each = sum(
            bytes_per_sample(dims(shape), self.settings.cache_dtype)
            for cut in self.branches
            for shape in self.backbone.tap_shapes[cut]
        )
        return each * (views * len(train.targets) + len(validation.targets))

    def _bytes_in_memory(self) -> int:
        """Of the fused way, without what a step itself takes for a moment."""
        values, weights = 0, 0
        for cut, specs in self.branches.items():
            values += sum(math.prod(dims(shape)) for shape in self.backbone.tap_shapes[cut])
            weights += sum(self.probes[cut, spec.label()].num_params for spec in specs)
        weights *= len(self.settings.seeds) * _STATES_OF_A_WEIGHT
        return 4 * (weights + values * self.settings.batch_size * self.workers.ahead)

    def _cached(self, train: Split, validation: Split) -> Iterator[_Round]:
        """One cut after the other, from taps on disk."""
        augment, dataset = self.settings.augment, train.dataset
        if augment is not None:
            dataset = views_of(dataset, augment)
        stored = self._cache(train.what, dataset, None)
        judged = self._cache(validation.what, validation.dataset, stored)
        for cut in stored.taps:
            yield _Round(
                stored,
                [stored.origin, judged.origin],
                StoredSupply(stored, (cut,), train.targets, self.device, augment),
                StoredSupply(judged, (cut,), validation.targets, self.device),
            )

    def _fused(self, train: Split, validation: Split) -> Iterator[_Round]:
        """All cuts at once, from the backbone itself."""
        augment, dataset = self.settings.augment, train.dataset
        live = LiveTaps.of(
            self.backbone,
            dataset if augment is None else views_of(dataset, augment),
            self.root / "cache",
            cuts=tuple(self.branches),
            statistics=any(found.standardised for found in self.probes.values()),
            dtype=self.settings.cache_dtype,
            device=self.device,
            workers=self.workers,
            progress=self._told(train.what),
        )
        yield _Round(
            live,
            [live.origin, validation.dataset.content_key],
            LiveSupply(live, dataset, train.targets, augment),
            LiveSupply(live, validation.dataset, validation.targets),
        )

    def _cache(self, what: str, dataset: Samples, scales_of: FeatureCache | None) -> FeatureCache:
        return FeatureCache.of(
            self.backbone,
            dataset,
            self.root / "cache",
            cuts=tuple(self.branches),
            scales_of=scales_of,
            dtype=self.settings.cache_dtype,
            device=str(self.device),
            threads=self.workers.count,
            progress=self._told(what),
        )

    def _told(self, what: str) -> Progress:
        return lambda step, *counts: self.progress(f"{step} of {what} data", *counts)

    def _train(self, each: _Round, way: Way) -> list[Learner]:
        """Train all branches at the cuts of a round, those with the longest steps first."""
        work = {
            self._learner(TrialName(cut, spec, seed), each.source): self.probes[
                cut, spec.label()
            ].flops
            for cut in each.train.cuts
            for spec in self.branches[cut]
            for seed in self.settings.seeds
        }
        given = {cut: self._given(cut, each, way) for cut in each.train.cuts}
        with closing(Ledger(self.root, given, tensorboard=self.curves)) as ledger:
            for learner in work:
                ledger.resume(learner)
            bench = Bench(
                each.train, each.validation, self.settings, self.workers, ledger, self.progress
            )
            train_together(sorted(work, key=work.__getitem__, reverse=True), bench)
        return list(work)

    def _learner(self, name: TrialName, source: _Source) -> Learner:
        with seeded(*name.stream, "init"):
            branch = name.spec.build(self.backbone.features(name.cut), self.backbone.num_outputs)
        standardisers = [part for part in branch.modules() if isinstance(part, Standardise)]
        if standardisers:
            for part, tap in zip(standardisers, source.statistics(name.cut), strict=True):
                part.set_statistics(*tap)
        return Learner(name, branch.to(self.device), self.settings, self.objective)

    def _given(self, cut: str, each: _Round, way: Way) -> dict[str, Any]:
        """All that decides a branch's result but its own name; other cuts do not."""
        [place] = [place for place in self.backbone.places if place.name == cut]
        return {
            "offramp": version("offramp"),
            "how": way.how,
            "place": repr(place),
            "taps": each.origins,
            "settings": self.settings.per_trial(),
            "task": self.objective.task,
            "num_outputs": self.backbone.num_outputs,
        }
