"""Course: a network in training, with everything that its next step depends on."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from offramp.multiexit.trial import Epoch
from offramp.task import Task
from offramp.training.settings import Schedule

Tensors = dict[str, Tensor]
LOST_DEVICE: Any = getattr(torch, "AcceleratorError", ())
"""After this error nothing on the device works any more."""
_FULL = ("DefaultCPUAllocator", "out of memory")
"""Texts of torch's plain RuntimeErrors if a CPU or mps device runs out of memory."""


class Goal(Protocol):
    """What a network is trained for: losses and scores of its answers (B, ...)."""

    @property
    def task(self) -> Task:
        """Whether the answers are classes or values."""

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The loss to minimise, a mean over the batch."""

    def answer_loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The loss that the learning rate and early stopping depend on, a mean over the batch."""

    def scores(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Of each answer (B,), larger is better: 1 or 0 for a class, minus the error of a value."""


@dataclass(frozen=True)
class Plateau:
    """Learning rate and early stopping after some epochs.

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

    def after(self, loss: float, settings: Schedule) -> Self:
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

    def _with_rate_after(self, loss: float, settings: Schedule) -> Self:
        """The same with the learning rate for the next epoch."""
        if loss + settings.lr_min_delta < self.lr_best_loss:
            return replace(self, lr_best_loss=loss, flat_epochs=0)
        flat = self.flat_epochs + 1
        if flat < settings.lr_patience:
            return replace(self, flat_epochs=flat)
        return replace(self, lr=self.lr * settings.lr_factor, flat_epochs=0)


class Course:
    """A network with its optimiser, its plateau, its history and the weights to keep.

    Attributes:
        network: What is trained.
        failure: Reason why training failed, if it did.
        goal: What it is trained for.
    """

    def __init__(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, settings: Schedule, goal: Goal
    ) -> None:
        self.network, self.goal = network, goal
        self._settings, self._optimiser = settings, optimiser
        self._device = next(network.parameters()).device
        self.plateau = Plateau(optimiser.param_groups[0]["lr"])
        self.history: list[Epoch] = []
        self.failure: str | None = None
        self._kept: Tensors = {}
        self._train = Average()
        self._validation = Average()

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
        for group in self._optimiser.param_groups:
            group["lr"] = self.plateau.lr
        self._train, self._validation = Average(), Average()

    @property
    def kept_epoch(self) -> Epoch:
        """The epoch whose weights are kept."""
        return self.history[-1 if self._keeps_last else self.plateau.best_epoch - 1]

    def keep(self) -> None:
        """Give the network the weights to keep."""
        self.network.load_state_dict(self._kept)

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
        self.network.load_state_dict(self._part(tensors, "now/"))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in self._part(tensors, "adam/").items():
            place, slot = name.split("/")
            slots.setdefault(int(place), {})[slot] = value
        groups: list[Any] = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": slots, "param_groups": groups})

    def _step(self, answers: Tensor, targets: Tensor) -> None:
        """One step of the optimiser, after which gradients take up no memory."""
        loss = self.goal.loss(answers, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._train.add(len(targets), loss.detach() * len(targets))

    def _validate(self, answers: Tensor, targets: Tensor) -> None:
        self._validation.add(
            len(targets),
            self.goal.answer_loss(answers, targets) * len(targets),
            *self._sums(answers, targets),
        )

    def _sums(self, answers: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the scores and of their squares."""
        scores = self.goal.scores(answers, targets)
        return scores.sum(), (scores**2).sum()

    def _rmse(self, mean_square: float) -> float | None:
        """The root mean squared error, from the mean of the squared scores of a regression."""
        return math.sqrt(mean_square) if self.goal.task == "regression" else None

    def _answer(self, inputs: Iterable[Tensor]) -> Tensor:
        half = self._settings.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            outputs: Tensor = self.network(*inputs)
        return outputs.float()

    def _end_epoch(self) -> None:
        [train_loss], [loss, score, square] = self._train.means(), self._validation.means()
        lr, self.plateau = self.plateau.lr, self._next_plateau(loss)
        rmse = self._rmse(square)
        self.history.append(Epoch(self.plateau.epoch, train_loss, loss, score, lr, rmse))
        if self.plateau.improved or self._keeps_last:
            self._kept = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        if self.plateau.best_epoch == 0 or (self._keeps_last and not math.isfinite(loss)):
            self.failure = f"diverged in epoch {self.epoch}"

    def _tensors(self) -> Tensors:
        if self.failure is not None:
            return {}
        tensors = {f"best/{name}": value for name, value in self._kept.items()}
        if not self.done:
            tensors |= {f"now/{name}": value for name, value in self.network.state_dict().items()}
            for place, slots in self._optimiser.state_dict()["state"].items():
                tensors |= {f"adam/{place}/{slot}": value for slot, value in slots.items()}
        return tensors

    def _next_plateau(self, loss: float) -> Plateau:
        return self.plateau.after(loss, self._settings)

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


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _FULL)
