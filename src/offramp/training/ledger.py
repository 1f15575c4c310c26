"""Ledger: where the state of every branch is kept on disk, and its curves."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp.branches import label
from offramp.training.board import Board
from offramp.training.checkpoint import load_checkpoint, save_checkpoint
from offramp.training.learner import TrialName
from offramp.training.trainee import Trainee


class Ledger:
    """State files of trainees, each under a key of all that decides its result.

    What decides it beside its own name is given per cut.

    A changed plan, data set or weight gives another key, so no state is ever taken for another's.
    """

    def __init__(
        self, root: Path, given: Mapping[str, Mapping[str, Any]], *, tensorboard: bool
    ) -> None:
        self._root, self._given, self._tensorboard = root, given, tensorboard
        self._boards: dict[TrialName, Board] = {}

    def path(self, trainee: Trainee) -> Path:
        """State file of a branch, or of those that step as one model."""
        names = [learner.name for learner in trainee.learners]
        key = json.dumps(
            [self._given[trainee.cut], *(name.stream for name in names)], sort_keys=True
        )
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        seeds = "-".join(str(name.seed) for name in names)
        file = f"{label(names[0].spec)}-seed{seeds}-{digest}.safetensors"
        return self._root / "state" / trainee.cut / file

    def resume(self, trainee: Trainee) -> None:
        """Give a trainee the state it had, if any."""
        load_checkpoint(self.path(trainee), trainee)
        for learner in trainee.learners if self._tensorboard else ():
            name = learner.name
            folder = self._root / "tensorboard" / name.cut / label(name.spec) / f"seed{name.seed}"
            self._boards[name] = Board(folder, learner.history)

    def record(self, trainee: Trainee) -> None:
        """Keep a trainee's state after an epoch."""
        save_checkpoint(self.path(trainee), trainee)
        for learner in trainee.learners:
            if learner.name in self._boards and learner.epoch == trainee.epoch:
                self._boards[learner.name].write(learner.history[-1])

    def close(self) -> None:
        """Finish the curves."""
        for board in self._boards.values():
            board.close()
        self._boards.clear()
