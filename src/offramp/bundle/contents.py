"""Contents of a bundle: its manifest, its policies, and its graphs when they are asked for."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from offramp.arguments import as_path
from offramp.bundle.card import model_card
from offramp.bundle.manifest import BundleManifest
from offramp.errors import BundleError, PlanError
from offramp.policy import ExitPolicy, PolicyMenu, Score, load_policies
from offramp.policy.menu import read_policy
from offramp.storage.folder import Contents, read_folder
from offramp.storage.manifest import BUNDLE, MANIFEST

POLICIES = "policy*.json"
README = "README.md"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle, in a folder or still in memory.

    Attributes:
        manifest: What it says of itself.
        policies: Its policies: one or a menu, and those for samples that lack an input.
        read: Gives the content of a graph's file.
        folder: Where it is; None while it is in memory.
        contents: What was read of the folder when it was opened, if it was.
    """

    manifest: BundleManifest
    policies: tuple[ExitPolicy, ...]
    read: Callable[[str], bytes]
    folder: Path | None = None
    contents: Contents | None = None

    @property
    def place(self) -> str:
        """What messages call it."""
        return "this bundle" if self.folder is None else str(self.folder)


def open_bundle(folder: str | Path, scores: Sequence[Score] = ()) -> Bundle:
    """Open a bundle; its graphs are read, and checked, when they are asked for.

    Args:
        folder: What `offramp export` wrote.
        scores: Scores of your own that its policies use.

    Raises:
        BundleError: The folder is not a bundle that this version reads, or a file was changed.
    """
    place = as_path(folder, "bundle")
    stored = read_folder(place, BUNDLE, (), [POLICIES])
    policies = [each for text in stored.files.values() for each in load_policies(text, scores)]
    manifest = read_manifest(stored.manifest, place)
    digests = stored.manifest["files"]
    return Bundle(manifest, tuple(policies), partial(_graph, place, digests), place, stored)


def card_with(folder: Path, name: str, policy: ExitPolicy | PolicyMenu) -> str:
    """The model card of a bundle once a policy of this name is among its files.

    Raises:
        BundleError: As `open_bundle`.
    """
    stored = read_folder(folder, BUNDLE, (), [POLICIES])
    policies = {file: read_policy(text) for file, text in stored.files.items() if file != name}
    manifest = read_manifest(stored.manifest, folder)
    return model_card(manifest, dict(sorted({**policies, name: policy}.items())))


def read_manifest(content: Mapping[str, Any], folder: Path) -> BundleManifest:
    """The manifest from what was read of a folder.

    Raises:
        BundleError: It has other fields than this version of offramp writes.
    """
    own = {name: value for name, value in content.items() if name not in ("files", "format")}
    try:
        return BundleManifest(**own)
    except PlanError as error:
        raise BundleError(
            f"{folder / MANIFEST} was written by another version of offramp: {error}\nUse that "
            "version, or export again with this one."
        ) from error


def _graph(folder: Path, digests: Mapping[str, str], file: str) -> bytes:
    """A graph of the state that was opened, and not of one that has replaced it."""
    found = read_folder(folder, BUNDLE, [file]).files[file]
    if hashlib.sha256(found).hexdigest() != digests.get(file):
        raise BundleError(
            f"{folder} was replaced by another bundle while it was in use, so {file} does not "
            "belong to what was opened. Open it again."
        )
    return found
