"""Fitting: every branch is trained on its own, on taps of a frozen backbone."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Unpack

import torch

from offramp.backbones.staged import StagedBackbone
from offramp.branches import BranchSpec
from offramp.data.augment import views_of
from offramp.data.samples import Samples
from offramp.errors import PlanError
from offramp.features import Executor, FeatureCache, LiveTaps, missing_bytes, start_executor
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Failed, Trial
from offramp.progress import Progress, silent
from offramp.storage.atomic import make_folder
from offramp.task import Task
from offramp.training.checks import Probes, Split, check_branches, check_device, check_split
from offramp.training.lockstep import Setup, SharedProgress
from offramp.training.mode import Mode, Needs, mode_in
from offramp.training.objective import Objective
from offramp.training.outcome import best_per_cut, report_failures
from offramp.training.settings import TrainOptions, TrainSettings, read_settings
from offramp.training.state import curves_folder, state_path
from offramp.training.supply import LiveSupply
from offramp.training.sweep import Sweep
from offramp.training.units import (
    Recipe,
    Resources,
    StoredTaps,
    TrainTrials,
    TrialFiles,
    train_all,
)

Results = tuple[Trial | Failed, ...]


def fit_branches(
    backbone: StagedBackbone,
    branches: Mapping[str, Sequence[BranchSpec]],
    train: Any,
    val: Any,
    *,
    seeds: Iterable[int],
    out: str | Path | None = None,
    cache: str | Path | None = None,
    task: Task = "classification",
    device: str = "cpu",
    threads: int | None = None,
    tensorboard: bool = True,
    progress: Progress = silent,
    known: Iterable[Trial | Failed] = (),
    **options: Unpack[TrainOptions],
) -> MultiExit:
    """Train branches on taps of a frozen backbone.

    Images run through the backbone as far as the last cut that has a branch: each once, its taps
    kept on disk, or batch by batch for all branches at once (`how`). Every branch
    has its own Adam, plateau, early stopping and random streams, so its weights do not depend on
    which others train beside it. Killed at any moment, the same call resumes and ends in the same
    weights. A branch whose training fails (it diverges, or its code raises) ends no other: it is in
    `failed` with the reason, and a cut where all have failed has no exit.

    Args:
        backbone: Left as it is, bit for bit.
        branches: For each cut by its name, the settings of the branches to try there.
        train: A map-style data set of (input or tuple of inputs, label), or a pair of arrays.
        val: The same; decides learning rate, stopping and which branch is chosen.
        seeds: Each trains every branch once.
        out: Keeps cache, state and curves; None is a temporary folder.
        cache: Keeps the taps instead, for any number of calls and processes to share. Taps of the
            same backbone, samples and cut are computed once; nothing in it is ever deleted.
        task: Labels are class numbers, or values.
        device: cpu, cuda or mps, where taps are computed and branches trained.
        threads: Branches that train at once on the CPU, each on one core; as many as torch has
            threads where None. No bit of a result depends on it.
        tensorboard: Write curves to `out`/tensorboard.
        progress: Called after each batch, by whichever thread took it.
        known: Trials of an earlier call on the same backbone and data with the same settings. Those
            that this call asks for are taken as they are, and only the others are trained.
        options: Fields of TrainSettings, such as how="cached", "fused" or "auto".

    Returns:
        The model with the branch of best validation score at each cut (the lower loss, then the
        first, where scores are equal), all trials, and those that failed.

    Raises:
        PlanError: A setting is wrong, or the mode asked for is not possible.
        CutError: A cut is unknown.
        ShapeError: Data or branch do not fit the backbone.
        DataError: Labels, values or disk space do not allow training, or every branch failed.
    """
    settings = read_settings(seeds, options)
    objective = Objective(task, settings.regression_loss)
    place = check_device(device)
    probes = check_branches(backbone, branches, objective)
    sets = [
        check_split(data, what, backbone, objective)
        for what, data in (("training", train), ("validation", val))
    ]
    recipe = Recipe(settings, task, backbone.num_outputs, str(place))
    with _folder(out) as root, start_executor(threads, place) as executor:
        taps = root / "cache" if cache is None else make_folder(Path(cache))
        curves = root if tensorboard and out is not None else None
        sweep = Sweep.of(backbone.cuts, branches, settings, known)
        fit = _Fit(backbone, sweep, probes, recipe, root, taps, curves, executor, progress)
        results = fit.run(*sets)
    trials = [result for result in results if isinstance(result, Trial)]
    failed = [result for result in results if isinstance(result, Failed)]
    report_failures(trials, failed, settings)
    return MultiExit(backbone, best_per_cut(trials), trials, failed=failed, task=task)


@dataclass(frozen=True, eq=False)
class _Fit:
    """One call of `fit_branches`, its arguments checked."""

    backbone: StagedBackbone
    sweep: Sweep
    probes: Probes
    recipe: Recipe
    root: Path
    taps: Path
    curves: Path | None
    executor: Executor
    progress: Progress

    def run(self, train: Split, validation: Split) -> Results:
        """Every trial in order, those that are not known trained now."""
        trained = self._train(train, validation) if self.sweep.needed else ()
        return self.sweep.in_order(trained)

    def _train(self, train: Split, validation: Split) -> Results:
        """Choose the mode, get the taps, and train on them every branch that is not known."""
        shapes = [shape for cut in self.sweep.cuts for shape in self.backbone.tap_shapes[cut]]
        num_params = sum(found.num_params for found in self.probes.values())
        samples = len(train.targets), len(validation.targets)
        settings, ahead = self.recipe.settings, self.executor.ahead
        needs = Needs.of(shapes, num_params, samples, settings, ahead)
        if settings.how == "auto":
            needs = replace(needs, there=needs.disk - self._missing_bytes(train, validation))
        mode = mode_in(self.root, self.sweep.cuts, needs, settings, self.taps)
        self.progress(str(mode), 1, 1)
        report = SharedProgress(
            self.progress,
            self.sweep.num_untrained,
            settings.epochs * len(train.targets),
        )
        with report.guard():
            run = self._cached if mode.how == "cached" else self._fused
            return run(train, validation, mode, report)

    def _cached(
        self, train: Split, validation: Split, mode: Mode, report: SharedProgress
    ) -> Results:
        """Units of work on taps from the disk, those with the longest steps first."""
        samples = _viewed(train.samples, self.recipe.settings)
        stored = self._cache(train.what, samples, None)
        judged = self._cache(validation.what, validation.samples, stored)
        together = torch.device(self.recipe.device).type != "cpu"
        units = [
            TrainTrials(
                self.recipe,
                cut,
                self.backbone.features(cut),
                StoredTaps(stored.folder, train.targets.numpy()),
                StoredTaps(judged.folder, validation.targets.numpy()),
                trials,
            )
            for cut in self.sweep.needed
            for trials in self._groups(
                cut, [stored.origin(cut), judged.origin(cut)], mode, together
            )
        ]
        order = sorted(range(len(units)), key=lambda place: -self._flops(units[place].trials))
        resources = Resources({stored.folder: stored, judged.folder: judged}, report)
        results = self.executor.all([units[place] for place in order], resources)
        found = dict(zip(order, results, strict=True))
        return tuple(result for place in range(len(units)) for result in found[place])

    def _fused(
        self, train: Split, validation: Split, mode: Mode, report: SharedProgress
    ) -> Results:
        """All branches in lockstep on what the backbone gives batch by batch."""
        settings, samples = self.recipe.settings, train.samples
        live = LiveTaps.of(
            self.backbone,
            _viewed(samples, settings),
            self.taps,
            cuts=self.sweep.needed,
            statistics=any(found.standardised for found in self.probes.values()),
            dtype=settings.cache_dtype,
            device=torch.device(self.recipe.device),
            executor=self.executor,
            progress=self._of(train.what),
        )
        judged = validation.samples.content_key
        trials = [
            files
            for cut in self.sweep.needed
            for [files] in self._groups(cut, [live.origin(cut), judged], mode, together=False)
        ]
        longest_first = sorted(trials, key=lambda files: -self._flops([files]))
        learners = {
            self.recipe.learner(
                files.name,
                self.backbone.features(files.name.cut),
                live.statistics(files.name.cut) if live.known else (),
            ): files
            for files in longest_first
        }
        setup = Setup(
            LiveSupply(live, samples, train.targets, settings.augment),
            LiveSupply(live, validation.samples, validation.targets),
            settings,
            self.executor,
            report,
        )
        results = train_all(learners, setup)
        found = {id(files): result for files, result in zip(longest_first, results, strict=True)}
        return tuple(found[id(files)] for files in trials)

    def _missing_bytes(self, train: Split, validation: Split) -> int:
        settings = self.recipe.settings
        return missing_bytes(
            self.backbone,
            _viewed(train.samples, settings),
            validation.samples,
            self.taps,
            cuts=self.sweep.needed,
            dtype=settings.cache_dtype,
            device=torch.device(self.recipe.device),
        )

    def _cache(self, what: str, samples: Samples, scales_of: FeatureCache | None) -> FeatureCache:
        return FeatureCache.of(
            self.backbone,
            samples,
            self.taps,
            cuts=self.sweep.needed,
            scales_of=scales_of,
            dtype=self.recipe.settings.cache_dtype,
            device=self.recipe.device,
            threads=self.executor.count,
            progress=self._of(what),
        )

    def _of(self, what: str) -> Progress:
        return lambda step, *counts: self.progress(f"{step} of {what} data", *counts)

    def _groups(
        self, cut: str, origins: Sequence[Any], mode: Mode, together: bool
    ) -> list[tuple[TrialFiles, ...]]:
        """The branches to train at a cut, alone or all together."""
        [place] = [place for place in self.backbone.places if place.name == cut]
        given = {
            "offramp": version("offramp"),
            "how": mode.how,
            "place": repr(place),
            "taps": origins,
            "task": self.recipe.task,
            "num_outputs": self.recipe.num_outputs,
        }
        settings = self.recipe.settings
        trials = [
            TrialFiles(
                name,
                state_path(self.root, name, given | {"settings": settings.of(name.rate)}),
                None if self.curves is None else curves_folder(self.curves, name),
            )
            for name in self.sweep.untrained(cut)
        ]
        return [tuple(trials)] if together else [(files,) for files in trials]

    def _flops(self, trials: Sequence[TrialFiles]) -> int:
        """Of one sample through all of these branches."""
        return sum(self.probes[files.name.cut, files.name.spec.label()].flops for files in trials)


def _viewed(samples: Samples, settings: TrainSettings) -> Samples:
    """What runs through the backbone for the training data: the samples, or views of them."""
    return samples if settings.augment is None else views_of(samples, settings.augment)


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out == "":
        raise PlanError("out is empty. Name a folder, such as runs/mine, or leave it out.")
    if out is not None:
        yield make_folder(Path(out))
    else:
        with tempfile.TemporaryDirectory(prefix="offramp-") as folder:
            yield Path(folder)
