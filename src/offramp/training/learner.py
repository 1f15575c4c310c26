"""Learner: one branch in training, with everything that its next step depends on."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from offramp.branches import BranchSpec, key
from offramp.branches.dropout import own_dropout, plain_dropout
from offramp.branches.kinds import predicts_error
from offramp.compute import random_stream
from offramp.multiexit.trial import Epoch, Failed, Trial, trial_label
from offramp.training.objective import Objective
from offramp.training.settings import TrainSettings

OUT_OF_MEMORY = "out of memory"
"""Start of the reason of a failure for lack of memory."""
Tensors = dict[str, Tensor]
_LOST_DEVICE: Any = getattr(torch, "AcceleratorError", ())
"""After this error nothing on the device works any more, so it is not a failure of one branch."""
_FULL = ("DefaultCPUAllocator", "out of memory")
"""Texts of torch's plain RuntimeErrors if a CPU or mps device runs out of memory."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialName:
    """Name of a trial: a spec at a cut with a seed.

    Attributes:
        rate: The learning rate, if several are tried; else None.
    """

    cut: str
    spec: BranchSpec
    seed: int
    rate: float | None = None

    @property
    def stream(self) -> tuple[str, str, int]:
        """Start of the names of this branch's random streams; the same for every learning rate."""
        return self.cut, key(self.spec), self.seed

    def __str__(self) -> str:
        return f"{trial_label(self.spec, self.rate)} at {self.cut!r}, seed {self.seed}"


@dataclass(frozen=True)
class Plateau:
    """Learning rate and early stopping of a branch after some epochs.

    Epochs are counted as in Keras, which the paper used: with a patience of 2, the second epoch in
    a row without a lower loss acts. The learning rate and early stopping each have their own best
    loss, like Keras's two callbacks: for early stopping any lower loss is better; for the learning
    rate it has to be lower by more than `lr_min_delta`.

    Attributes:
        lr: Learning rate for the next epoch.
        epoch: Number of epochs so far.
        best_loss: Lowest validation loss so far.
        best_epoch: Epoch of that loss, counted from 1; 0 before the first.
        lr_best_loss: Best loss for the learning rate.
        flat_epochs: Epochs since that loss, or since the last reduction of the learning rate.
        stopped: Whether training has ended.
    """

    lr: float
    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    lr_best_loss: float = math.inf
    flat_epochs: int = 0
    stopped: bool = False

    @property
    def improved(self) -> bool:
        """Whether the last epoch had the lowest loss so far."""
        return self.epoch > 0 and self.best_epoch == self.epoch

    def after(self, loss: float, settings: TrainSettings) -> Self:
        """The state after one more epoch, with this validation loss."""
        epoch = self.epoch + 1
        lower = loss < self.best_loss
        best_epoch = epoch if lower else self.best_epoch
        return replace(
            self._with_rate_after(loss, settings),
            epoch=epoch,
            best_loss=loss if lower else self.best_loss,
            best_epoch=best_epoch,
            stopped=epoch >= settings.epochs
            or epoch - best_epoch >= settings.stop_patience
            or not math.isfinite(loss),
        )

    def _with_rate_after(self, loss: float, settings: TrainSettings) -> Self:
        """The same with the learning rate for the next epoch."""
        if loss + settings.lr_min_delta < self.lr_best_loss:
            return replace(self, lr_best_loss=loss, flat_epochs=0)
        flat = self.flat_epochs + 1
        if flat < settings.lr_patience:
            return replace(self, flat_epochs=flat)
        return replace(self, lr=self.lr * settings.lr_factor, flat_epochs=0)


class Learner:
    """A branch with its Adam, its plateau and the weights to keep.

    Every step has its own random stream, so other branches do not affect it. An exception in the
    branch's own code ends the training of this branch only.

    Attributes:
        failure: Reason why training failed, if it did.
        passing: Whether the failure is not the branch's own fault (memory ran out), so that a later
            call may try again.
    """

    def __init__(
        self, name: TrialName, branch: nn.Module, settings: TrainSettings, objective: Objective
    ) -> None:
        self.name, self.branch = name, branch
        self._settings = settings
        self._objective = replace(objective, error_predictor=predicts_error(name.spec))
        self._device = next(branch.parameters()).device
        self._generator = torch.Generator(self._device)
        own_dropout(branch, self._generator)
        [lr] = settings.rates
        self.plateau = Plateau(lr)
        self.history: list[Epoch] = []
        self.failure: str | None = None
        self.passing = False
        self._adam = torch.optim.Adam(
            branch.parameters(),
            lr,
            eps=settings.adam_epsilon,
            fused=self._device.type != "mps",
        )
        self._kept: Tensors = {}
        self._train = Average()
        self._validation = Average()

    @property
    def cut(self) -> str:
        """Cut at which the branch reads."""
        return self.name.cut

    @property
    def epoch(self) -> int:
        """Number of epochs so far."""
        return self.plateau.epoch

    @property
    def done(self) -> bool:
        """Whether training has ended or failed."""
        return self.plateau.stopped or self.failure is not None

    @property
    def _keeps_last(self) -> bool:
        return self._settings.keep == "last"

    def begin_epoch(self) -> None:
        """Set the learning rate of this epoch and start new averages."""
        for group in self._adam.param_groups:
            group["lr"] = self.plateau.lr
        self._train, self._validation = Average(), Average()

    def learn(self, taps: tuple[Tensor, ...], targets: Tensor, step: int) -> None:
        """One step of Adam; `step` counts from the start of training."""
        self._failing_alone(self._learn, taps, targets, step)

    def judge(self, taps: tuple[Tensor, ...], targets: Tensor) -> None:
        """Validate one batch of samples."""
        self._failing_alone(self._judge, taps, targets)

    def end_epoch(self) -> None:
        """End the epoch: record it, set the next learning rate, decide whether to stop."""
        self._failing_alone(self._end_epoch)

    def result(self) -> Trial | Failed:
        """The trained branch with the weights to keep, on the CPU, or the reason why it failed."""
        name = self.name
        if self.failure is not None:
            return Failed(name.cut, name.spec, name.seed, self.failure, name.rate)
        self.branch.load_state_dict(self._kept)
        plain_dropout(self.branch)
        kept = self.history[-1 if self._keeps_last else self.plateau.best_epoch - 1]
        return Trial(
            cut=name.cut,
            spec=name.spec,
            seed=name.seed,
            branch=self.branch.cpu().eval(),
            history=tuple(self.history),
            best_epoch=kept.epoch,
            validation_loss=kept.validation_loss,
            validation_score=kept.validation_score,
            rate=name.rate,
        )

    def state(self) -> tuple[Tensors, str]:
        """What resuming needs: tensors, and the rest as JSON. After training, only the result."""
        scalars = {
            "plateau": asdict(self.plateau),
            "history": [asdict(epoch) for epoch in self.history],
            "failure": self.failure,
        }
        return self._tensors(), json.dumps(scalars)

    def restore(self, tensors: Mapping[str, Tensor], scalars: str) -> None:
        """Resume from what `state` returned."""
        read = json.loads(scalars)
        self.plateau = Plateau(**read["plateau"])
        self.history = [Epoch(**epoch) for epoch in read["history"]]
        self.failure = read["failure"]
        self._kept = self._part(tensors, "best/")
        if self.done:
            return
        self.branch.load_state_dict(self._part(tensors, "now/"))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in self._part(tensors, "adam/").items():
            place, slot = name.split("/")
            slots.setdefault(int(place), {})[slot] = value
        groups: list[Any] = self._adam.state_dict()["param_groups"]
        self._adam.load_state_dict({"state": slots, "param_groups": groups})

    def _failing_alone(self, work: Callable[..., None], *args: Any) -> None:
        """Do work unless this branch has failed; an exception is recorded as its failure."""
        if self.failure is not None:
            return
        try:
            work(*args)
        except _LOST_DEVICE:
            raise
        except Exception as error:  # the branch's own code may raise anything
            text = (str(error).splitlines() or [""])[0]
            self.passing = _is_out_of_memory(error)
            what = OUT_OF_MEMORY if self.passing else type(error).__name__
            self.failure = f"{what} in epoch {self.epoch + 1}: {text}"
            _log.debug("%s failed", self.name, exc_info=error)

    def _learn(self, taps: tuple[Tensor, ...], targets: Tensor, step: int) -> None:
        self.branch.train()
        self._generator.manual_seed(random_stream(*self.name.stream, "step", step))
        self._adam.zero_grad(set_to_none=True)
        loss = self._objective.loss(self._answer(taps), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        self._train.add(len(targets), loss.detach() * len(targets))

    @torch.no_grad()
    def _judge(self, taps: tuple[Tensor, ...], targets: Tensor) -> None:
        self.branch.eval()
        outputs = self._answer(taps)
        self._validation.add(
            len(targets),
            self._objective.answer_loss(outputs, targets) * len(targets),
            self._objective.score(outputs, targets),
        )

    def _end_epoch(self) -> None:
        [train_loss], [loss, score] = self._train.means(), self._validation.means()
        lr, self.plateau = self.plateau.lr, self.plateau.after(loss, self._settings)
        self.history.append(Epoch(self.plateau.epoch, train_loss, loss, score, lr))
        if self.plateau.improved or self._keeps_last:
            self._kept = {k: v.detach().clone() for k, v in self.branch.state_dict().items()}
        if self.plateau.best_epoch == 0 or (self._keeps_last and not math.isfinite(loss)):
            self.failure = f"diverged in epoch {self.epoch}"

    def _tensors(self) -> Tensors:
        if self.failure is not None:
            return {}
        tensors = {f"best/{name}": value for name, value in self._kept.items()}
        if not self.done:
            tensors |= {f"now/{name}": value for name, value in self.branch.state_dict().items()}
            for place, slots in self._adam.state_dict()["state"].items():
                tensors |= {f"adam/{place}/{slot}": value for slot, value in slots.items()}
        return tensors

    def _answer(self, taps: tuple[Tensor, ...]) -> Tensor:
        half = self._settings.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            outputs: Tensor = self.branch(*taps)
        return outputs.float()

    def _part(self, tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
        return {
            name.removeprefix(prefix): value.to(self._device)
            for name, value in tensors.items()
            if name.startswith(prefix)
        }


class Average:
    """Means over samples, read once per epoch, so that no step waits for a transfer."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._sums: list[Tensor] = []

    def add(self, count: int, *sums: Tensor) -> None:
        """Add sums over the `count` samples of a batch."""
        self._counts.append(count)
        self._sums.append(torch.stack(sums))

    def means(self) -> list[float]:
        """One mean per number, in float64."""
        total = torch.stack(self._sums).cpu().double().sum(dim=0)
        return [float(number) / sum(self._counts) for number in total]


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _FULL)
