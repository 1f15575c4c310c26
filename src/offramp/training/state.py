"""State: training state on disk, so that a killed run can resume.

A state is a safetensors file with the other values as JSON in its header and a digest of both, so
that nothing is unpickled and damage is noticed. Names chosen by users never become paths: state
files are named by a digest, folders of curves by `safe_name`.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from offramp.errors import BundleError, DataError
from offramp.multiexit.trial import Epoch, trial_label
from offramp.storage.atomic import make_folder, replacing
from offramp.training.course import Tensors
from offramp.training.learner import Learner, TrialName

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_log = logging.getLogger(__name__)


class Resumable(Protocol):
    """What is trained and can resume from its state."""

    @property
    def name(self) -> object:
        """What it is, for messages."""

    def state(self) -> tuple[Tensors, str]:
        """What resuming needs: tensors, and the rest as JSON."""

    def restore(self, tensors: Mapping[str, Tensor], scalars: str) -> None:
        """Resume from what `state` returned."""


class State:
    """State file of one branch and, if wanted, its TensorBoard curves."""

    def __init__(self, path: Path, curves: Path | None = None) -> None:
        self.path, self._folder = path, curves
        self._curves: Curves | None = None

    def resume(self, learner: Learner) -> None:
        """Restore the learner from its saved state, if there is one, and open its curves."""
        load_state(self.path, learner)
        if self._folder is not None:
            self._curves = Curves(self._folder, learner.history)

    def record(self, learner: Learner) -> None:
        """Save the learner's state after an epoch.

        If memory ran out, the state of the last complete epoch stays, so that the next call resumes
        from there.

        Raises:
            DataError: The disk is full; the earlier state stays.
        """
        if not learner.passing:
            save_state(self.path, learner)
        if self._curves is not None and learner.failure is None:
            self._curves.write(learner.history[-1])

    def close(self) -> None:
        """Finish the curves."""
        if self._curves is not None:
            self._curves.close()


def state_path(root: Path, name: TrialName, given: Mapping[str, Any]) -> Path:
    """Path of a state file, named by a digest of everything that decides the branch's result.

    A different plan, data set or backbone gives a different name.
    """
    return path_for(root, [given, name.stream])


def path_for(root: Path, content: Any) -> Path:
    """Path of a state file, named by a digest of plain values that decide the result."""
    text = json.dumps(content, sort_keys=True)
    return root / "state" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


def curves_folder(root: Path, name: TrialName) -> Path:
    """Folder of a branch's TensorBoard curves."""
    parts = safe_name(name.cut), safe_name(trial_label(name.spec, name.rate)), f"seed{name.seed}"
    return root.joinpath("tensorboard", *parts)


def safe_name(text: str) -> str:
    """A safe file name for any text; different texts get names that differ in more than case.

    Lower-case letters, digits and `._-` stay. If anything else had to be replaced, or the name is
    long or reserved, 16 hex digits of the text's SHA-256 are appended.
    """
    plain = re.sub(r"[^a-z0-9._-]", "_", text.lower())[:60].strip(".")
    if plain == text != "" and not _RESERVED.fullmatch(plain):
        return plain
    return f"{plain or '_'}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class Curves:
    """TensorBoard curves of a branch.

    A killed run may have written more epochs than it saved, or fewer, so existing files are deleted
    and the saved history is written again.
    """

    def __init__(self, folder: Path, history: Sequence[Epoch]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here: takes two seconds to import

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))
        for epoch in history:
            self.write(epoch)

    def write(self, epoch: Epoch) -> None:
        """Add one epoch."""
        figures = asdict(epoch)
        step = figures.pop("epoch")
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def save_state(path: Path, learner: Resumable) -> None:
    """Replace the saved state of what is trained.

    Raises:
        DataError: The disk is full; the earlier state stays.
    """
    tensors, scalars = learner.state()
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    about = {"of": str(learner.name), "sha256": digest_of(tensors, scalars), "scalars": scalars}
    make_folder(path.parent)
    try:
        with replacing(path) as temporary:
            # `save_file` would write to a temporary file of its own, which a kill leaves behind.
            temporary.write_bytes(save(tensors, {"state": json.dumps(about)}))
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the training state {path} cannot be written: {error}. Free some space there and run "
            "the same command again: it resumes from the last state that was saved."
        ) from error


def load_state(path: Path, learner: Resumable) -> bool:
    """Restore it from its saved state if that is intact; return whether it was."""
    if not path.exists():
        return False
    try:
        tensors, scalars = _read(path)
    except BundleError as error:
        _log.warning("%s Training of %s starts again.", error, learner.name)
        return False
    learner.restore(tensors, scalars)
    return True


def _read(path: Path) -> tuple[Tensors, str]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"the training state {path} cannot be read: {error}.") from error
    scalars: str = about["scalars"]
    if about["sha256"] != digest_of(tensors, scalars):
        raise BundleError(f"the training state {path} is damaged: its SHA-256 differs.")
    return tensors, scalars


def digest_of(tensors: Mapping[str, Tensor], scalars: str = "") -> str:
    """SHA-256 over text and tensors, which are on the CPU."""
    digest = hashlib.sha256(scalars.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
