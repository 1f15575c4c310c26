"""Finetuner: a whole network in training, or its batch norm and top alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from offramp.backbones.top import top_place
from offramp.compute import seeded
from offramp.errors import DataError, PlanError, ShapeError
from offramp.multiexit.answers import columns
from offramp.task import Task
from offramp.training.course import LOST_DEVICE, Average, Course, Goal, Plateau, is_out_of_memory
from offramp.training.settings import StageSettings

Trains = Literal["all", "batch_norm"]
Stage = Literal["density", "train"]


@dataclass(frozen=True, eq=False)
class Parts:
    """What of a network is trained.

    Attributes:
        parameters: Those that the optimiser changes.
        still: Modules that stay in evaluation mode, so that their buffers do not move.
    """

    parameters: tuple[nn.Parameter, ...]
    still: tuple[nn.Module, ...] = ()


def parts_to_train(network: nn.Module, trains: Trains) -> Parts:
    """What of a network is trained; all its other parameters are frozen.

    Args:
        network: The network.
        trains: `all`, or `batch_norm`: scale, shift and running statistics of every batch-norm
            layer, and all of the top, or of the last layer if there is no top.

    Raises:
        PlanError: Batch norm is to be trained, and there is none, or no single last layer.
    """
    if trains == "all":
        network.requires_grad_(True)
        return Parts(tuple(network.parameters()))
    own = set(network.get_submodule(top_place(network)).modules())
    norms = {module for module in network.modules() if isinstance(module, _BatchNorm)}
    if not norms - own:
        raise PlanError(
            f"trains is batch_norm, but {type(network).__name__} has no batch-norm layer. Train "
            "all of it: `trains: all`."
        )
    network.requires_grad_(False)
    for module in norms | own:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)
    return Parts(
        tuple(parameter for parameter in network.parameters() if parameter.requires_grad),
        tuple(each for each in network.modules() if each not in norms | own and _has_buffers(each)),
    )


def _has_buffers(module: nn.Module) -> bool:
    return next(module.buffers(recurse=False), None) is not None


@dataclass(frozen=True)
class DensityGoal:
    """Maps (B, H, W) that should equal target maps: paper, section 4.2, first stage.

    Scores, and the loss that chooses the epoch to keep, are errors of the count, which is the sum
    of a map.
    """

    task: Task = "regression"

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Sum of squares of each map, a mean over the batch."""
        return reduce((answers - targets) ** 2, "b h w -> b", "sum").mean()

    def answer_loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Mean absolute error of the counts."""
        return _count_errors(answers, targets).mean()

    def scores(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Minus the absolute error of each count."""
        return -_count_errors(answers, targets)


def _count_errors(answers: Tensor, targets: Tensor) -> Tensor:
    return reduce(answers - targets, "b h w -> b", "sum").abs()


class Finetuner(Course):
    """A network that is trained on its inputs, not on taps.

    Every step has its own random stream, so that a resumed training draws as one that was never
    stopped.
    """

    def __init__(
        self,
        network: nn.Module,
        parts: Parts,
        settings: StageSettings,
        goal: Goal,
        stage: Stage = "train",
    ) -> None:
        device = next(network.parameters()).device
        kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
        optimiser = kind(
            parts.parameters,
            settings.lr,
            eps=settings.adam_epsilon,
            weight_decay=settings.weight_decay,
            fused=device.type != "mps",
        )
        super().__init__(network, optimiser, settings, goal)
        self.name = stage
        self._parts, self._lr_decay, self._seed = parts, settings.lr_decay, settings.seed

    def learn(self, inputs: Sequence[Tensor], targets: Tensor, step: int) -> None:
        """One step of the optimiser; `step` counts from the start of training.

        Raises:
            DataError: Memory ran out.
            PlanError: An operator is refused since it is not deterministic.
            ShapeError: The network cannot train on a batch of this size.
        """
        self.network.train()
        for module in self._parts.still:
            module.training = False
        try:
            with seeded("finetune", self.name, self._seed, step, device=self._device):
                self._step(self._answer(inputs), targets)
        except LOST_DEVICE:
            raise
        except Exception as error:
            raise self._explained(error, len(targets)) from error

    @torch.no_grad()
    def judge(self, inputs: Sequence[Tensor], targets: Tensor) -> None:
        """Validate one batch of samples."""
        self.network.eval()
        self._validate(self._answer(inputs), targets)

    def end_epoch(self) -> None:
        """End the epoch: record it, set the next learning rate, decide whether to stop.

        Raises:
            DataError: The loss is not finite and no weights can be kept.
        """
        self._end_epoch()
        if self.failure is not None:
            raise DataError(
                f"finetuning {self.failure}: the validation loss is not finite. Use a train.lr "
                f"below {self.history[0].lr:g}."
            )

    @torch.no_grad()
    def test(
        self, batches: Iterable[tuple[Sequence[Tensor], Tensor]]
    ) -> tuple[float, float | None]:
        """Mean score over samples, and the root mean squared error of values."""
        self.network.eval()
        found = Average()
        for inputs, targets in batches:
            found.add(len(targets), *self._sums(self._answer(inputs), targets))
        [score, square] = found.means()
        return score, self._rmse(square)

    def _answer(self, inputs: Iterable[Tensor]) -> Tensor:
        half = self._settings.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            if self.name == "density":
                maps: Tensor = self.network.density(*inputs)  # type: ignore[operator]
                return rearrange(maps.float(), "b 1 h w -> b h w")
            answer: Tensor = self.network(*inputs)
        return columns(answer.float(), self.goal.task)

    def _next_plateau(self, loss: float) -> Plateau:
        if self._lr_decay is None:
            return super()._next_plateau(loss)
        every = self._settings.epochs + 1
        patient = self._settings.model_copy(update={"lr_patience": every, "stop_patience": every})
        after = self.plateau.after(loss, patient)
        return replace(after, lr=after.lr * self._lr_decay)

    def _explained(self, error: Exception, batch_size: int) -> Exception:
        """The error, or one that says what to do about it."""
        where = f"in epoch {self.epoch + 1} with {batch_size} samples a batch"
        if is_out_of_memory(error):
            return DataError(
                f"memory ran out {where}. Use a smaller train.batch_size, or free some memory and "
                "repeat the same command, which resumes after the last epoch that was saved."
            )
        if "deterministic" in str(error):
            return PlanError(
                f"an operator of the network gives different bits on each call: {error}. Set "
                "train.deterministic to false; then the weights will differ from run to run."
            )
        if isinstance(error, RuntimeError | ValueError | TypeError):
            return ShapeError(
                f"the network failed {where}: {type(error).__name__}: {error}. Its inputs may be "
                "of another size than it takes, or the batch too small for its batch norm."
            )
        return error
