"""Fitting: every branch is trained on its own, on taps of a frozen backbone."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Unpack

from offramp.arguments import as_items, as_path, check_kind
from offramp.backbones.staged import StagedBackbone
from offramp.branches import BranchSpec
from offramp.data.samples import Samples
from offramp.features import Executor, FeatureCache, LiveTaps, start_executor
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Failed, Trial
from offramp.progress import Progress, silent
from offramp.storage.atomic import make_folder
from offramp.task import Task
from offramp.training.job import Job
from offramp.training.lockstep import Setup, SharedProgress
from offramp.training.mode import Mode, mode_in
from offramp.training.outcome import best_per_cut, report_failures
from offramp.training.settings import TrainOptions, read_settings
from offramp.training.state import curves_folder, state_path
from offramp.training.supply import LiveSupply
from offramp.training.units import (
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

    Warns:
        DoubtWarning: All training samples are of one class, or classes have none.
    """
    settings = read_settings(seeds, options)
    earlier = as_items(known, "known", "Give a list of trials, such as those of another model.")
    for each in earlier:
        check_kind(each, (Trial, Failed), "an entry of known", "Give a Trial or a Failed.")
    job = Job.of(
        backbone, branches, train, val, settings=settings, task=task, device=device, known=earlier
    )
    with _folder(out) as root, start_executor(threads, job.device) as executor:
        taps = root / "cache" if cache is None else make_folder(as_path(cache, "cache"))
        curves = root if tensorboard and out is not None else None
        results = _Fit(job, root, taps, curves, executor, progress).run()
    trials = [result for result in results if isinstance(result, Trial)]
    failed = [result for result in results if isinstance(result, Failed)]
    report_failures(trials, failed, settings)
    return MultiExit(backbone, best_per_cut(trials), trials, failed=failed, task=task)


@dataclass(frozen=True, eq=False)
class _Fit:
    """One call of `fit_branches`, its arguments checked."""

    job: Job
    root: Path
    taps: Path
    curves: Path | None
    executor: Executor
    progress: Progress

    def run(self) -> Results:
        """Every trial in order, those that are not known trained now."""
        sweep = self.job.sweep
        return sweep.in_order(self._train() if sweep.needed else ())

    def _train(self) -> Results:
        """Choose the mode, get the taps, and train on them every branch that is not known."""
        job, sweep = self.job, self.job.sweep
        needs = job.needs(self.taps, self.executor.ahead)
        mode = mode_in(self.root, sweep.cuts, needs, job.settings, self.taps)
        self.progress(str(mode), 1, 1)
        report = SharedProgress(
            self.progress, sweep.num_untrained, job.settings.epochs * len(job.train.targets)
        )
        with report.guard():
            run = self._cached if mode.how == "cached" else self._fused
            return run(mode, report)

    def _cached(self, mode: Mode, report: SharedProgress) -> Results:
        """Units of work on taps from the disk, those with the longest steps first."""
        job = self.job
        train, validation = job.train, job.validation
        stored = self._cache(train.what, job.training_samples, None)
        judged = self._cache(validation.what, validation.samples, stored)
        together = job.device.type != "cpu"
        units = [
            TrainTrials(
                job.recipe,
                cut,
                job.backbone.features(cut),
                StoredTaps(stored.folder, train.targets.numpy()),
                StoredTaps(judged.folder, validation.targets.numpy()),
                trials,
            )
            for cut in job.sweep.needed
            for trials in self._groups(
                cut, [stored.origin(cut), judged.origin(cut)], mode, together
            )
        ]
        order = sorted(range(len(units)), key=lambda place: -self._flops(units[place].trials))
        resources = Resources({stored.folder: stored, judged.folder: judged}, report)
        results = self.executor.all([units[place] for place in order], resources)
        found = dict(zip(order, results, strict=True))
        return tuple(result for place in range(len(units)) for result in found[place])

    def _fused(self, mode: Mode, report: SharedProgress) -> Results:
        """All branches in lockstep on what the backbone gives batch by batch."""
        job = self.job
        settings, samples = job.settings, job.train.samples
        live = LiveTaps.of(
            job.backbone,
            job.training_samples,
            self.taps,
            cuts=job.sweep.needed,
            statistics=any(found.standardised for found in job.probes.values()),
            dtype=settings.cache_dtype,
            device=job.device,
            executor=self.executor,
            progress=self._of(job.train.what),
        )
        validation = job.validation
        judged = validation.samples.content_key
        trials = [
            files
            for cut in job.sweep.needed
            for [files] in self._groups(cut, [live.origin(cut), judged], mode, together=False)
        ]
        longest_first = sorted(trials, key=lambda files: -self._flops([files]))
        learners = {
            job.recipe.learner(
                files.name,
                job.backbone.features(files.name.cut),
                live.statistics(files.name.cut) if live.known else (),
            ): files
            for files in longest_first
        }
        setup = Setup(
            LiveSupply(live, samples, job.train.targets, settings.augment),
            LiveSupply(live, validation.samples, validation.targets),
            settings,
            self.executor,
            report,
        )
        results = train_all(learners, setup)
        found = {id(files): result for files, result in zip(longest_first, results, strict=True)}
        return tuple(found[id(files)] for files in trials)

    def _cache(self, what: str, samples: Samples, scales_of: FeatureCache | None) -> FeatureCache:
        return FeatureCache.of(
            self.job.backbone,
            samples,
            self.taps,
            cuts=self.job.sweep.needed,
            scales_of=scales_of,
            dtype=self.job.settings.cache_dtype,
            device=self.job.recipe.device,
            threads=self.executor.count,
            progress=self._of(what),
        )

    def _of(self, what: str) -> Progress:
        return lambda step, *counts: self.progress(f"{step} of {what} data", *counts)

    def _groups(
        self, cut: str, origins: Sequence[Any], mode: Mode, together: bool
    ) -> list[tuple[TrialFiles, ...]]:
        """The branches to train at a cut, alone or all together."""
        [place] = [place for place in self.job.backbone.places if place.name == cut]
        given = {
            "offramp": version("offramp"),
            "how": mode.how,
            "place": repr(place),
            "taps": origins,
            "task": self.job.recipe.task,
            "num_outputs": self.job.recipe.num_outputs,
        }
        settings = self.job.settings
        trials = [
            TrialFiles(
                name,
                state_path(self.root, name, given | {"settings": settings.of(name.rate)}),
                None if self.curves is None else curves_folder(self.curves, name),
            )
            for name in self.job.sweep.untrained(cut)
        ]
        return [tuple(trials)] if together else [(files,) for files in trials]

    def _flops(self, trials: Sequence[TrialFiles]) -> int:
        """Of one sample through all of these branches."""
        return sum(
            self.job.probes[files.name.cut, files.name.spec.label()].flops for files in trials
        )


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield make_folder(as_path(out, "out"))
    else:
        with tempfile.TemporaryDirectory(prefix="offramp-") as folder:
            yield Path(folder)
