"""Classifier-wise training: every branch on its own, on cached taps of a frozen backbone."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Unpack

import torch

from offramp.atomic import make_folder
from offramp.backbones.staged import StagedBackbone
from offramp.branches import BranchSpec
from offramp.branches.tap import Standardise
from offramp.compute import seeded
from offramp.features import FeatureCache, Workers, start_workers
from offramp.multiexit import MultiExit
from offramp.progress import Progress, silent
from offramp.training.checks import Split, check_branches, check_device, check_split
from offramp.training.learner import Learner, TrialName
from offramp.training.ledger import Ledger
from offramp.training.lockstep import Bench, TapSet, train_together
from offramp.training.objective import Objective
from offramp.training.settings import TrainOptions, TrainSettings, read_settings
from offramp.trial import Task, Trial


def fit_branches(
    backbone: StagedBackbone,
    branches: Mapping[str, Sequence[BranchSpec]],
    train: Any,
    val: Any,
    *,
    seeds: Iterable[int],
    out: str | Path | None = None,
    task: Task = "classification",
    device: str = "cpu",
    threads: int | None = None,
    tensorboard: bool = True,
    progress: Progress = silent,
    **options: Unpack[TrainOptions],
) -> MultiExit:
    """Train branches on cached taps of a frozen backbone.

    Each image runs through the backbone once, up to the last cut that has a branch. Every branch
    has its own Adam, plateau, early stopping and random streams, so its weights do not depend on
    which others train beside it. Killed at any moment, the same call goes on to the same weights.

    Args:
        backbone: Left as it is, bit for bit.
        branches: For each cut by its name, the settings of the branches to try there.
        train: A map-style data set of (input or tuple of inputs, label), or a pair of arrays.
        val: The same; decides learning rate, stopping and which branch is chosen.
        seeds: Each trains every branch once.
        out: Keeps cache, state and curves; None is a temporary folder.
        task: Labels are class numbers, or values.
        device: cpu, cuda or mps, where taps are computed and branches trained.
        threads: Branches that train at once on the CPU, each on one core; as many as torch has
            threads where None. No bit of a result depends on it.
        tensorboard: Write curves to `out`/tensorboard.
        progress: Told after each batch.
        options: Fields of TrainSettings.

    Returns:
        The model with the branch of best validation score at each cut (the lower loss, then the
        first, where scores are equal), and all trials.

    Raises:
        PlanError: A setting is wrong.
        CutError: A cut is unknown.
        ShapeError: Data or branch do not fit the backbone.
        DataError: Labels, values or disk space do not allow training.
    """
    settings = read_settings(seeds, options)
    objective = Objective(task, settings.regression_loss)
    place = check_device(device)
    check_branches(backbone, branches, objective)
    sets = tuple(
        check_split(data, what, backbone, objective)
        for what, data in (("training", train), ("validation", val))
    )
    with _folder(out) as root, start_workers(threads, place) as workers:
        curves = tensorboard and out is not None
        job = _Job(backbone, branches, settings, objective, place, root, workers, curves, progress)
        trials = job.run(*sets)
    return MultiExit(backbone, best_per_cut(trials), trials, task=task)


def best_per_cut(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Best trial of each cut by validation score; the lower loss, then the first, breaks a tie."""
    best: dict[str, Trial] = {}
    for trial in trials:
        other = best.get(trial.cut)
        if other is None or _rank(trial) > _rank(other):
            best[trial.cut] = trial
    return best


def _rank(trial: Trial) -> tuple[float, float]:
    return trial.validation_score, -trial.validation_loss


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield make_folder(Path(out))
    else:
        with tempfile.TemporaryDirectory(prefix="offramp-") as folder:
            yield Path(folder)


@dataclass(frozen=True, eq=False)
class _Job:
    """One call of `fit_branches`, its arguments checked."""

    backbone: StagedBackbone
    branches: Mapping[str, Sequence[BranchSpec]]
    settings: TrainSettings
    objective: Objective
    device: torch.device
    root: Path
    workers: Workers
    curves: bool
    progress: Progress

    def run(self, train: Split, validation: Split) -> list[Trial]:
        """Fill the caches, then train cut after cut."""
        train_cache = self._cache(train, None)
        validation_cache = self._cache(validation, train_cache)
        trials: list[Trial] = []
        for cut in train_cache.taps:
            learners = self._train(
                cut,
                TapSet(train_cache, cut, train.targets, self.device),
                TapSet(validation_cache, cut, validation.targets, self.device),
            )
            trials += [learner.trial() for learner in learners]
        return trials

    def _cache(self, split: Split, scales_of: FeatureCache | None) -> FeatureCache:
        return FeatureCache.of(
            self.backbone,
            split.dataset,
            self.root / "cache",
            cuts=tuple(self.branches),
            scales_of=scales_of,
            dtype=self.settings.cache_dtype,
            device=str(self.device),
            threads=self.workers.count,
            progress=lambda what, *counts: self.progress(f"{what} of {split.what} data", *counts),
        )

    def _train(self, cut: str, train: TapSet, validation: TapSet) -> list[Learner]:
        learners = [
            self._learner(TrialName(cut, spec, seed), train.cache)
            for spec in self.branches[cut]
            for seed in self.settings.seeds
        ]
        given = self._given(cut, train.cache, validation.cache)
        with closing(Ledger(self.root, given, tensorboard=self.curves)) as ledger:
            for learner in learners:
                ledger.resume(learner)
            bench = Bench(train, validation, self.settings, self.workers, ledger, self.progress)
            train_together(learners, bench)
        return learners

    def _learner(self, name: TrialName, cache: FeatureCache) -> Learner:
        with seeded(*name.stream, "init"):
            branch = name.spec.build(self.backbone.tap_shapes[name.cut], self.backbone.num_outputs)
        if isinstance(branch.standardise, Standardise):
            mean, std = cache.statistics(name.cut)[0]
            branch.standardise.set_statistics(mean, std)
        return Learner(name, branch.to(self.device), self.settings, self.objective)

    def _given(self, cut: str, *caches: FeatureCache) -> dict[str, Any]:
        """All that decides a branch's result but its own name; other cuts do not."""
        [place] = [place for place in self.backbone.places if place.name == cut]
        return {
            "offramp": version("offramp"),
            "place": repr(place),
            "taps": [cache.origin for cache in caches],
            "settings": self.settings.per_trial(),
            "task": self.objective.task,
            "num_outputs": self.backbone.num_outputs,
        }
