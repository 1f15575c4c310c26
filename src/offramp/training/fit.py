"""Train branches, each on its own, on the taps of a frozen backbone."""

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

    The backbone runs up to the last cut that has a branch. Either each image runs through it once
    and its taps are stored on disk, or each batch runs through it for all branches together; `how`
    chooses. Every branch has its own Adam, plateau, early stopping and random streams, so its
    weights do not depend on the other branches. If the process is killed, the same call resumes and
    ends with the same weights. If the training of a branch fails (it diverges, or its code raises),
    the others continue: the branch is in `failed` with the reason. A cut at which all branches
    failed has no exit.

    Args:
        backbone: The cut backbone, which is not changed.
        branches: For each cut, by name, the settings of the branches to try there.
        train: A map-style data set of (input or tuple of inputs, label), or a pair of arrays.
        val: Validation data in the same form. It decides the learning rate, when training stops
            and which branch is chosen.
        seeds: Every branch is trained once with each seed.
        out: Folder for cache, training state and curves; None uses a temporary folder.
        cache: Folder for the taps instead, which any number of calls and processes may share. Taps
            of the same backbone, samples and cut are computed once. Nothing in it is deleted.
        task: "classification", with class numbers as labels, or "regression", with values.
        device: cpu, cuda or mps, where taps are computed and branches trained.
        threads: Number of branches that train at the same time on the CPU, each on one core. None
            uses as many as torch has threads. Results do not depend on it.
        tensorboard: Write curves to `out`/tensorboard.
        progress: Called after each batch, by whichever thread took it.
        known: Trials of an earlier call with the same backbone, data and settings. Those that this
            call also asks for are reused, and only the others are trained.
        options: Fields of TrainSettings, such as how="cached", "fused" or "auto".

    Returns:
        A model that holds all trials, those that failed, and at each cut the branch with the best
        validation score. Between equal scores the lower loss decides, then the order.

    Raises:
        PlanError: A setting is wrong, or the mode asked for is not possible.
        CutError: A cut is unknown.
        ShapeError: The data or a branch does not fit the backbone.
        DataError: Labels, values or disk space do not allow training, or every branch failed.

    Warns:
        DoubtWarning: All training samples are of one class, or some classes have no sample.
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
        """Train the trials that are not known, and return all in order."""
        sweep = self.job.sweep
        return sweep.in_order(self._train() if sweep.needed else ())

    def _train(self) -> Results:
        """Choose the mode, get the taps, and train the trials that are not known."""
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
        """Train on taps from disk, starting with the units whose steps take longest."""
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
        """Train all branches in lockstep, on batches of taps straight from the backbone."""
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
        """Groups of branches at a cut that are trained together: one each, or all in one."""
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
        """FLOPs of one sample in all of these branches."""
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
