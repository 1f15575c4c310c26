"""OpenRun: a finished run with its preprocessing, policy and class names, for new samples."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from offramp.answering import Opened, Route
from offramp.answering.opened import Stacked
from offramp.arguments import as_path, check_kind
from offramp.compute import torch_switches
from offramp.multiexit.facts import facts_of
from offramp.multiexit.model import MultiExit
from offramp.multiexit.routing import route, rows_are_apart
from offramp.multiexit.saved import WEIGHTS
from offramp.policy import ExitPolicy, Score, load_policies
from offramp.run.names import POLICY, lacking
from offramp.run.stored_model import plan_and_model
from offramp.storage.folder import read_folder
from offramp.storage.manifest import RUN
from offramp.training.checks import check_device


def open_run(
    folder: str | Path,
    *,
    backbone_file: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    scores: Sequence[Score] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> "OpenRun":
    """Open a finished run to answer new samples.

    Args:
        folder: A run folder of `offramp train`; its policies are used if it has some.
        backbone_file: `file.py:function`, for a run whose backbone is `python`.
        device: cpu, cuda or mps.
        threads: CPU threads; None leaves torch's number.
        scores: Scores of your own that the policy uses.
        clock: In seconds, for the times in an answer.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
        PlanError: The device is not available.
    """
    check_device(device)
    files = [POLICY, lacking(POLICY, "*")]
    stored = read_folder(as_path(folder, "folder"), RUN, [WEIGHTS], files)
    _, model = plan_and_model(stored, backbone_file)
    own = [content for name, content in stored.files.items() if name != WEIGHTS]
    policies = [policy for content in own for policy in load_policies(content, scores)]
    return OpenRun(model.to(device), policies, threads=threads, clock=clock)


class OpenRun(Opened):
    """A model and its policies, which answer new samples with torch.

    `model` may also come from elsewhere, such as `fit_branches`.

    Attributes:
        model: Backbone and branches.
    """

    def __init__(
        self,
        model: MultiExit,
        policies: Iterable[ExitPolicy] = (),
        *,
        threads: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_kind(model, MultiExit, "model", "Give a MultiExit, or open a run with open_run.")
        super().__init__(facts_of(model), model.source(), policies, clock)
        self.model = model
        self._threads = threads
        self._together: bool | None = None

    def _may_run_together(self) -> bool:
        if self._together is None:
            self._together = rows_are_apart(self.model)
        return self._together

    def _routes(self, inputs: Stacked, policy: ExitPolicy) -> list[Route]:
        tensors = tuple(None if each is None else torch.from_numpy(each) for each in inputs)
        with torch_switches(threads=self._threads):
            return route(self.model, tensors, policy, self._clock)
