"""Checkpoint: where a learner stands, in one file that is either whole or not there.

Tensors are stored as safetensors with the rest as JSON in the header, under a digest of both, so
that nothing is unpickled and a damaged file is found out.
"""

import hashlib
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from offramp.errors import BundleError, DataError
from offramp.storage.atomic import make_folder, replacing
from offramp.training.learner import Learner, Tensors

_log = logging.getLogger(__name__)


def save_checkpoint(path: Path, learner: Learner) -> None:
    """Put a learner's state in place of what was there.

    Raises:
        DataError: The disk takes no more; the earlier state stays.
    """
    tensors, scalars = learner.state()
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {"scalars": scalars, "sha256": _digest(tensors, scalars)}
    make_folder(path.parent)
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, header)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"the training state {path} cannot be written: {error}. Free some space there; the "
            "same command then goes on from the last state that was saved."
        ) from error


def load_checkpoint(path: Path, learner: Learner) -> bool:
    """Give a learner the state it had, if there is a whole one; say whether there was."""
    for leftover in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
        leftover.unlink()  # of a run that was killed while writing
    if not path.exists():
        return False
    try:
        tensors, scalars = _read(path)
    except BundleError as error:
        _log.warning("%s This branch is trained again from its start.", error)
        return False
    learner.restore(tensors, scalars)
    return True


def _read(path: Path) -> tuple[Tensors, str]:
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BundleError(f"the training state {path} cannot be read: {error}.") from error
    scalars = header.get("scalars", "")
    if header.get("sha256") != _digest(tensors, scalars):
        raise BundleError(f"the training state {path} is damaged: its SHA-256 differs.")
    return tensors, scalars


def _digest(tensors: Tensors, scalars: str) -> str:
    digest = hashlib.sha256(scalars.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().numpy().data)
    return digest.hexdigest()
