"""Outcome: the trial that is chosen at each cut, and the report on those that failed."""

import logging
from collections.abc import Sequence

from offramp.errors import DataError
from offramp.multiexit.trial import Failed, Trial
from offramp.training.learner import OUT_OF_MEMORY
from offramp.training.settings import TrainSettings

_log = logging.getLogger(__name__)


def report_failures(
    trials: Sequence[Trial], failed: Sequence[Failed], settings: TrainSettings
) -> None:
    """Warn about branches that failed and cuts without an exit.

    Raises:
        DataError: No branch was trained.
    """
    diverged = any("diverged" in each.reason for each in failed)
    short = any(each.reason.startswith(OUT_OF_MEMORY) for each in failed)
    lower = (
        f"If training diverged, use an lr below {min(settings.rates):g}, or standardise=True in "
        "the settings of the branch."
    )
    again = (
        "If memory ran out, free some or use fewer threads, and repeat the same call: it resumes "
        "from the last epoch that was saved."
    )
    advice = " ".join([lower] * diverged + [again] * short)
    if not trials:
        listed = "; ".join(map(str, failed))
        raise DataError(f"no branch could be trained: {listed}. {advice}".rstrip())
    if failed:
        _log.warning("Training failed for %s. %s", "; ".join(map(str, failed)), advice)
    for cut in sorted({each.cut for each in failed} - {trial.cut for trial in trials}):
        _log.warning("All branches at %r failed, so the model has no exit there.", cut)


def best_per_cut(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Best trial of each cut by validation score; ties go to the lower loss, then to the first."""
    best: dict[str, Trial] = {}
    for trial in trials:
        other = best.get(trial.cut)
        if other is None or _rank(trial) > _rank(other):
            best[trial.cut] = trial
    return best


def _rank(trial: Trial) -> tuple[float, float]:
    return trial.validation_score, -trial.validation_loss
