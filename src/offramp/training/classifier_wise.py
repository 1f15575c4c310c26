"""Classifier-wise training: every branch on its own, on taps of a frozen backbone."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from offramp.backbones.staged import StagedBackbone
from offramp.branches import BranchSpec
from offramp.features import start_executor
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.progress import Progress, silent
from offramp.storage.atomic import make_folder
from offramp.task import Task
from offramp.training.checks import check_branches, check_device, check_split
from offramp.training.job import Job
from offramp.training.objective import Objective
from offramp.training.settings import TrainOptions, read_settings


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
    """Train branches on taps of a frozen backbone.

    Images run through the backbone as far as the last cut that has a branch: each once, its taps
    kept on disk, or batch by batch for all branches at once (`how`). Every branch
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
        options: Fields of TrainSettings, such as how="cached", "fused" or "auto".

    Returns:
        The model with the branch of best validation score at each cut (the lower loss, then the
        first, where scores are equal), and all trials.

    Raises:
        PlanError: A setting is wrong, or the way asked for cannot be taken.
        CutError: A cut is unknown.
        ShapeError: Data or branch do not fit the backbone.
        DataError: Labels, values or disk space do not allow training.
    """
    settings = read_settings(seeds, options)
    objective = Objective(task, settings.regression_loss)
    place = check_device(device)
    probes = check_branches(backbone, branches, objective)
    sets = tuple(
        check_split(data, what, backbone, objective)
        for what, data in (("training", train), ("validation", val))
    )
    with _folder(out) as root, start_executor(threads, place) as workers:
        curves = tensorboard and out is not None
        job = Job(
            backbone, branches, probes, settings, objective, place, root, workers, curves, progress
        )
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
