"""A model on disk: weights in `model.safetensors`, everything else in `manifest.json`.

The weights of a backbone from the zoo are stored with the branches, so that the folder is enough to
load the model. For a backbone given in Python only a digest of its weights is stored.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from offramp.arguments import as_items, check_kind
from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.backbones.top import Top
from offramp.backbones.weights import load_weights
from offramp.backbones.zoo import architecture
from offramp.branches import branch_kinds, read_spec
from offramp.branches.kinds import Kinds, changed_settings
from offramp.compute import seeded
from offramp.errors import BundleError
from offramp.multiexit.trial import Epoch, Failed, ModelInfo, Trial
from offramp.preprocess import Preprocess
from offramp.storage.atomic import write_bytes
from offramp.storage.folder import Contents
from offramp.task import Task, num_answers

_INPUTS: TypeAdapter[tuple[Preprocess, ...]] = TypeAdapter(tuple[Preprocess, ...])

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ModelParts:
    """The parts of a MultiExit."""

    backbone: StagedBackbone
    chosen: Mapping[str, Trial]
    trials: tuple[Trial, ...]
    failed: tuple[Failed, ...]
    task: Task
    info: ModelInfo


def model_digest(backbone: StagedBackbone, chosen: Mapping[str, Trial]) -> str:
    """SHA-256 over the backbone's weights and each chosen branch's place, spec and weights."""
    digest = hashlib.sha256(backbone.weights_digest().encode())
    for name, trial in chosen.items():
        digest.update(f"{name} {changed_settings(trial.spec)}".encode())
        for key, tensor in trial.branch.state_dict().items():
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(
                tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            )
    return digest.hexdigest()


def write_weights(parts: ModelParts, folder: Path) -> None:
    """Write the weights of all trials, and of the backbone if it can be built from its name."""
    tensors = {
        f"trials.{index}.{key}": tensor.detach().cpu().contiguous().clone()  # may be shared
        for index, trial in enumerate(_every_trial(parts))
        for key, tensor in trial.branch.state_dict().items()
    }
    if parts.info.backbone is not None:
        tensors |= {
            f"backbone.{key}": tensor.detach().cpu().contiguous().clone()
            for key, tensor in parts.backbone.original.state_dict().items()
        }
    write_bytes(folder / WEIGHTS, tensor_bytes(tensors))


def load_model(
    stored: Contents, module: nn.Module | None, branches: Sequence[type] = ()
) -> ModelParts:
    """Build a model from what was read from its folder, including the weights.

    `module` and `branches` are as in MultiExit.load.
    """
    remedy = "Give the nn.Module that was cut, or leave it out if the backbone was given by name."
    check_kind(module, (nn.Module, NoneType), "backbone", remedy)
    kinds = branch_kinds(as_items(branches, "branches", "Give a list of classes."))
    folder, manifest = stored.folder, stored.manifest
    tensors = read_tensors(stored.files[WEIGHTS])
    given = module.original if isinstance(module, StagedBackbone) else module
    original = given if given is not None else _zoo_backbone(folder, manifest, tensors)
    sample = _sample(manifest, original)
    places = [Cut(c["name"], tuple(c["after"]), tuple(c["taps"])) for c in manifest["cuts"]]
    backbone = cut(original, places, sample, leaves=manifest.get("leaves", ()))
    if manifest["precision"] is not None:
        backbone.to(getattr(torch, manifest["precision"]))
    if backbone.weights_digest() != manifest["backbone_digest"]:
        raise BundleError(
            f"the backbone given for {folder} is not the one that its branches were trained on: "
            "weights or architecture differ. Pass the same model with the same weights; to train "
            "branches for this one, choose another folder (--out)."
        )
    trials = tuple(
        _trial(backbone, kinds, manifest, entry, _under(tensors, f"trials.{index}."))
        for index, entry in enumerate(manifest["trials"])
    )
    return ModelParts(
        backbone,
        {trials[index].cut: trials[index] for index in manifest["chosen"]},
        trials,
        tuple(
            Failed(
                entry["cut"],
                read_spec(entry["spec"], kinds),
                entry["seed"],
                entry["reason"],
                entry.get("rate"),
            )
            for entry in manifest["failed"]
        ),
        manifest["task"],
        ModelInfo(
            manifest["backbone"],
            read_inputs(manifest["preprocess"]),
            tuple(manifest["class_names"]),
        ),
    )


def read_inputs(given: Any) -> tuple[Preprocess, ...]:
    """Read the preprocessing of each input; earlier versions wrote a single one, or null."""
    listed = [given] if isinstance(given, Mapping) else given
    return _INPUTS.validate_python(listed or ())


def describe_model(parts: ModelParts) -> dict[str, Any]:
    """Everything but the weights, as the manifest stores it."""
    info, every = parts.info, _every_trial(parts)
    return {
        "task": parts.task,
        "backbone": None if info.backbone is None else dict(info.backbone),
        "backbone_digest": parts.backbone.weights_digest(),
        "model_digest": model_digest(parts.backbone, parts.chosen),
        "input_shapes": [list(shape) for shape in parts.backbone.input_shapes],
        "input_dtypes": [_dtype_name(dtype) for dtype in parts.backbone.input_dtypes],
        "precision": _dtype_name(_precision(dict(parts.backbone.named_parameters()))),
        "num_outputs": num_answers(parts.backbone.output_shape, parts.task),
        "cuts": [dataclasses.asdict(place) for place in parts.backbone.places],
        "leaves": list(parts.backbone.leaves),
        "chosen": [every.index(trial) for trial in parts.chosen.values()],
        "trials": [
            {
                "cut": trial.cut,
                "label": trial.label,
                "spec": trial.spec.model_dump(mode="json"),
                "seed": trial.seed,
                "rate": trial.rate,
                "best_epoch": trial.best_epoch,
                "validation_loss": trial.validation_loss,
                "validation_score": trial.validation_score,
                "history": [dataclasses.asdict(epoch) for epoch in trial.history],
            }
            for trial in every
        ],
        "failed": [
            {
                "cut": failed.cut,
                "label": failed.label,
                "spec": failed.spec.model_dump(mode="json"),
                "seed": failed.seed,
                "rate": failed.rate,
                "reason": failed.reason,
            }
            for failed in parts.failed
        ],
        "preprocess": [each.model_dump(mode="json") for each in info.inputs],
        "class_names": list(info.class_names),
    }


def _every_trial(parts: ModelParts) -> tuple[Trial, ...]:
    """The trials, and chosen branches that are not among them."""
    return parts.trials + tuple(t for t in parts.chosen.values() if t not in parts.trials)


def _trial(
    backbone: StagedBackbone,
    kinds: Kinds,
    manifest: Mapping[str, Any],
    entry: Mapping[str, Any],
    weights: Mapping[str, Tensor],
) -> Trial:
    spec = read_spec(entry["spec"], kinds)
    with seeded("load"):  # the initial weights are overwritten; the caller's stream stays
        branch = spec.build(backbone.features(entry["cut"]), manifest["num_outputs"])
    branch.to(_precision(weights))
    try:
        branch.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(
            f"the weights of {spec.label()} do not fit what its build() makes now: {error}. Use "
            f"the version of {type(spec).__name__} that they were trained with."
        ) from error
    return Trial(
        entry["cut"],
        spec,
        entry["seed"],
        branch.eval(),
        tuple(Epoch(**epoch) for epoch in entry["history"]),
        entry["best_epoch"],
        entry["validation_loss"],
        entry["validation_score"],
        entry.get("rate"),
    )


def _zoo_backbone(
    folder: Path, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> nn.Module:
    description = manifest["backbone"]
    if description is None or description["name"] == "python":
        flag = (description or {}).get("function", "file.py:function")
        raise BundleError(
            f"the backbone of {folder} was given by API or flag, so its code is not stored. Pass "
            f"it: MultiExit.load(run, backbone=your_model), or --backbone path/to/{flag}."
        )
    top = description.get("top")
    module = architecture(
        description["name"],
        weights=description.get("weights"),
        num_outputs=description["num_outputs"],
        options=description.get("options"),
        top=top and Top.model_validate(top),
    )
    weights = _under(tensors, "backbone.")
    load_weights(module.to(_precision(weights)), weights, str(folder / WEIGHTS))
    return module


def _sample(manifest: Mapping[str, Any], original: nn.Module) -> tuple[Tensor, ...]:
    """Sample inputs for cutting, in the precision of the weights before conversion."""
    precision = _precision(dict(original.named_parameters()))
    inputs = zip(manifest["input_shapes"], manifest["input_dtypes"], strict=True)
    zeros = [torch.zeros(1, *shape, dtype=getattr(torch, dtype)) for shape, dtype in inputs]
    return tuple(each.to(precision) if each.is_floating_point() else each for each in zeros)


def _dtype_name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).partition(".")[2]


def _precision(weights: Mapping[str, Tensor]) -> torch.dtype | None:
    """Type of the first floating-point weight; None if there is none."""
    return next((value.dtype for value in weights.values() if value.is_floating_point()), None)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
