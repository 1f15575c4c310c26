"""A folder of `offramp finetune` as the weights of a backbone: what network they are for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from safetensors.torch import load
from torch import Tensor

from offramp.backbones.entry import PRETRAINED, BuildRequest
from offramp.backbones.top import Top
from offramp.errors import PlanError
from offramp.storage.atomic import sha256_of
from offramp.storage.folder import is_stored, read_folder
from offramp.storage.manifest import BACKBONE

WEIGHTS = "model.safetensors"
PLAN = "plan.yaml"


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A finetuned network on disk.

    Attributes:
        folder: Where it is.
        name: Of the backbone.
        weights: What the architecture was built for, as in `BuildRequest`.
        num_outputs: Of a new last layer or top; None if the backbone kept its own.
        options: Arguments of the constructor.
        top: The dense layers in place of the last layer; None if the backbone kept its own.
        digest: SHA-256 of its file of weights.
    """

    folder: Path
    name: str
    weights: str | None
    num_outputs: int | None
    options: Mapping[str, Any]
    top: Top | None
    digest: str

    @classmethod
    def at(cls, weights: str | Path | None) -> Self | None:
        """The finetuned network in a folder; None if the weights are something else.

        Raises:
            BundleError: The folder is another of offramp's, unfinished or damaged.
        """
        folder = Path(weights or "")
        if weights in (None, PRETRAINED) or not folder.is_dir():
            return None
        if not (is_stored(folder) or (folder / PLAN).is_file()):
            return None
        manifest = read_folder(folder, BACKBONE).manifest
        facts = manifest["backbone"]
        top = None if facts["top"] is None else Top.model_validate(facts["top"])
        return cls(
            folder,
            facts["name"],
            facts["weights"],
            facts["num_outputs"],
            facts["options"],
            top,
            manifest["files"][WEIGHTS],
        )

    def tensors(self) -> dict[str, Tensor]:
        """The weights.

        Raises:
            BundleError: The file was changed or damaged.
        """
        return dict(load(read_folder(self.folder, BACKBONE, [WEIGHTS]).files[WEIGHTS]))

    def request(self, name: str, given: BuildRequest) -> BuildRequest:
        """The request that builds the network; what `given` says besides has to agree with it.

        Raises:
            PlanError: The folder is of another network; it names all that differs.
        """
        pairs = {
            "name": (name, self.name),
            "num_outputs": (given.num_outputs, self.num_outputs),
            "top": (given.top, self.top),
            **{f"options.{key}": (v, self.options.get(key)) for key, v in given.options.items()},
        }
        faults = [
            f"{key} is {_text(own)}, not {_text(asked)}"
            for key, (asked, own) in pairs.items()
            if asked is not None and asked != own
        ]
        if faults:
            raise PlanError(
                f"{self.folder} holds a finetuned network that differs from the one asked for: "
                f"{'; '.join(faults)}. Leave out num_outputs, options and top, which are read from "
                "the folder, or name the folder of the network that you want."
            )
        return replace(
            given,
            weights=self.weights,
            num_outputs=self.num_outputs,
            options=self.options,
            top=self.top,
        )


def weights_digest(weights: str | None) -> str | None:
    """SHA-256 of a file of weights or of those in a folder; None if a plan names no such thing.

    Raises:
        BundleError: The folder is another of offramp's, unfinished or damaged.
    """
    if weights in (None, PRETRAINED):
        return None
    path = Path(str(weights))
    if found := Finetuned.at(path):
        return found.digest
    if not path.is_dir():
        return sha256_of(path)
    listed = sorted(each for each in path.iterdir() if each.is_file())
    lines = "\n".join(f"{sha256_of(each)} {each.name}" for each in listed)
    return hashlib.sha256(lines.encode()).hexdigest()


def _text(value: Any) -> str:
    return repr(value) if not isinstance(value, Top) else repr(value.model_dump())
