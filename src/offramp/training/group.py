"""Group: branches that differ in their seed alone and take their steps as one batched model."""

import copy
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from offramp.branches.tap import Standardise
from offramp.errors import PlanError
from offramp.training.dropout import group_dropout
from offramp.training.learner import Learner, Tensors


class Group:
    """Learners of one cut and spec, seeds apart, that step as one batched model.

    Each keeps its own weights, Adam, random streams, plateau and averages, so a step gives each
    what it would get apart, up to rounding. One that is done takes no part.

    On one CPU core, three seeds at batch 64, this does not pay: a step of SL-ViT takes as long as
    apart within 6 %, one of a convolutional branch as long on 7x7 taps and a third more on 28x28.
    It was made for devices that many small steps leave idle, where it was not measured.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = tuple(learners)
        if len({(learner.name.cut, learner.name.spec) for learner in learners}) != 1:
            raise PlanError(
                "branches step as one model only with one spec at one cut, since their weights "
                f"are stacked; got {', '.join(map(str, (each.name for each in learners)))}. "
                "Make a group of each spec at each cut."
            )
        self._generators: list[torch.Generator] = []
        self._model = _twin(self.learners[0])
        group_dropout(self._model, self._generators)

    @property
    def cut(self) -> str:
        """Where the branches read."""
        return self.learners[0].cut

    @property
    def epoch(self) -> int:
        """Epochs that are behind those that still train."""
        return max(learner.epoch for learner in self.learners)

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return not self._active

    @property
    def _active(self) -> list[Learner]:
        return [learner for learner in self.learners if not learner.done]

    def begin_epoch(self) -> None:
        """Take this epoch's learning rates and start the averages anew."""
        for learner in self._active:
            learner.begin_epoch()

    def learn(self, taps: tuple[Tensor, ...], targets: Tensor, step: int) -> None:
        """One step of Adam for every learner; `step` counts from the start of training."""
        active = self._active
        for learner in active:
            learner.begin_step(step)
        answers = self._answer(active, taps)
        losses = [
            learner.objective.loss(answer, targets)
            for learner, answer in zip(active, answers, strict=True)
        ]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        for learner, loss in zip(active, losses, strict=True):
            learner.end_step(loss, len(targets))

    def judge(self, taps: tuple[Tensor, ...], targets: Tensor) -> None:
        """Take in one batch of validation samples, each learner apart."""
        for learner in self._active:
            learner.judge(taps, targets)

    def end_epoch(self) -> None:
        """Close the epoch.

        Raises:
            DataError: The first epoch already gives some learner no finite validation loss.
        """
        for learner in self._active:
            learner.end_epoch()

    def state(self) -> tuple[Tensors, str]:
        """All that going on needs: tensors, and the rest as JSON."""
        states = [learner.state() for learner in self.learners]
        tensors = {
            f"{place}/{name}": value
            for place, (each, _) in enumerate(states)
            for name, value in each.items()
        }
        return tensors, json.dumps([scalars for _, scalars in states])

    def restore(self, tensors: Mapping[str, Tensor], scalars: str) -> None:
        """Go on from what `state` gave."""
        for place, (learner, own) in enumerate(
            zip(self.learners, json.loads(scalars), strict=True)
        ):
            prefix = f"{place}/"
            learner.restore(
                {
                    name.removeprefix(prefix): value
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                },
                own,
            )

    def _answer(self, active: Sequence[Learner], taps: tuple[Tensor, ...]) -> Tensor:
        """Answers of K learners to the same taps: (K, B, num_outputs)."""
        self._generators[:] = [learner.generator for learner in active]
        weights = _stacked([dict(learner.branch.named_parameters()) for learner in active])
        owned = [_moving_buffers(learner.branch) for learner in active]
        moved = _stacked(owned)

        def one(weights: Tensors, moved: Tensors) -> Tensor:
            answer: Tensor = functional_call(self._model, (weights, moved), taps)
            return answer

        with active[0].casting():
            answers: Tensor = vmap(one)(weights, moved)
        for place, buffers in enumerate(owned):
            for name, buffer in buffers.items():
                buffer.copy_(moved[name][place])
        return answers.float()


def _stacked(each: Sequence[Mapping[str, Tensor]]) -> Tensors:
    """Differentiable, so that gradients reach each learner's own weights."""
    return {name: torch.stack([tensors[name] for tensors in each]) for name in each[0]}


def _moving_buffers(branch: nn.Module) -> Tensors:
    """Batch norm's; a tap's statistics are the same for all seeds and are worked with once."""
    return {
        f"{place}.{name}": buffer
        for place, part in branch.named_modules()
        if not isinstance(part, Standardise)
        for name, buffer in part.named_buffers(recurse=False)
    }


def _twin(learner: Learner) -> nn.Module:
    """The branch's modules anew, in training for good, on the same tensors."""
    branch = learner.branch
    kept = [*branch.parameters(), *branch.buffers(), learner.generator]
    return copy.deepcopy(branch, {id(each): each for each in kept}).train()
