"""Ledger: where the state of every branch is kept on disk, and its curves."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp.training.board import Board
from offramp.training.checkpoint import load_checkpoint, save_checkpoint
from offramp.training.learner import Learner, TrialName


class Ledger:
    """State files of branches, each under a key of all that decides its result.

    What decides it beside its own name is given per cut.

    A changed plan, data set or weight gives another key, so no state is ever taken for another's.
    """

    def __init__(
        self, root: Path, given: Mapping[str, Mapping[str, Any]], *, tensorboard: bool
    ) -> None:
        self._root, self._given, self._tensorboard = root, given, tensorboard
        self._boards: dict[TrialName, Board] = {}

    def path(self, learner: Learner) -> Path:
        """State file of a branch."""
        name = learner.name
        key = json.dumps([self._given[name.cut], name.stream], sort_keys=True)
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        file = f"{name.spec.label()}-seed{name.seed}-{digest}.safetensors"
        return self._root / "state" / name.cut / file

    def resume(self, learner: Learner) -> None:
        """Give a learner the state it had, if any."""
        load_checkpoint(self.path(learner), learner)
        if self._tensorboard:
            name = learner.name
            folder = self._root / "tensorboard" / name.cut / name.spec.label() / f"seed{name.seed}"
            self._boards[name] = Board(folder, learner.history)

    def record(self, learner: Learner) -> None:
        """Keep a learner's state after an epoch."""
        save_checkpoint(self.path(learner), learner)
        if learner.name in self._boards:
            self._boards[learner.name].write(learner.history[-1])

    def close(self) -> None:
        """Finish the curves."""
        for board in self._boards.values():
            board.close()
        self._boards.clear()
