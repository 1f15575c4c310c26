"""From a finetune plan to a backbone folder. After any stop, the same call resumes."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensor_bytes

from offramp.arguments import as_path, check_kind
from offramp.backbones.finetuned import WEIGHTS, weights_digest
from offramp.compute import device_name, torch_switches
from offramp.data import Splits
from offramp.errors import DataError, PlanError
from offramp.machine import environment
from offramp.progress import Progress, silent
from offramp.record import Record, plain
from offramp.run.data import RunData, check_files, data_keys
from offramp.run.finetune_plan import FinetunePlan, load_finetune_plan
from offramp.run.finetune_stages import loader, stages_of
from offramp.run.finetune_start import Start
from offramp.run.names import ENVIRONMENT, HISTORY, PLAN, WORK
from offramp.storage.atomic import make_folder, write_bytes
from offramp.storage.folder import changing, check_free, is_stored, read_folder
from offramp.storage.manifest import BACKBONE
from offramp.task import Measure, measure_of
from offramp.training.checks import check_device
from offramp.training.finetune import in_order, readers

NAMES = (WEIGHTS, HISTORY, ENVIRONMENT)
"""Files of a backbone folder, besides its manifest and plan."""


@dataclass(frozen=True, eq=False)
class FinetuneResult(Record):
    """What a finetuning gave.

    Attributes:
        folder: Where it is.
        backbone: Name of the network.
        num_outputs: Of the network.
        trains: What was trained.
        measure: What `validation` and `test` are: accuracy or mean absolute error.
        epoch: The epoch whose weights were kept.
        validation: Of these weights.
        test: Of these weights.
        validation_rmse: Root mean squared error of a regression; None for classification.
        test_rmse: The same for the test samples.
        history: Epochs of each stage.
        warnings: About the data, such as that files are stand-ins or that splits share sources.
        seconds: Of training and testing, in the call that finished it.
        work_done: Sentence on what the call did.
    """

    folder: str
    backbone: str
    num_outputs: int
    trains: str
    measure: Measure
    epoch: int
    validation: float
    test: float
    validation_rmse: float | None
    test_rmse: float | None
    history: Mapping[str, Any]
    warnings: tuple[str, ...]
    seconds: float
    work_done: str

    def __str__(self) -> str:
        measure, epochs = self.measure, len(self.history["train"])
        layers = "all layers" if self.trains == "all" else "batch norm and the top"
        outputs = f"{self.num_outputs} output{'s' * (self.num_outputs != 1)}"
        return "\n".join(
            [
                f"{self.backbone} with {outputs}, {layers} finetuned",
                f"epoch {self.epoch} of {epochs} kept",
                f"validation: {measure.summary(self.validation, self.validation_rmse)}",
                f"test: {measure.summary(self.test, self.test_rmse)}",
                *[measure.note] * bool(measure.note),
                *[f"Warning: {each}" for each in self.warnings],
                "a plan names it as its backbone:",
                f'  backbone: {{name: "{self.backbone}", weights: {self.folder}}}',
            ]
        )


def finetune(
    plan: FinetunePlan,
    out: str | Path,
    *,
    splits: Splits | None = None,
    backbone_file: str | None = None,
    data_file: str | None = None,
    data_root: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> FinetuneResult:
    """Finetune a backbone as a plan says, into a folder that other plans name as its weights.

    A finished folder of the same plan is only read.

    Args:
        plan: The plan.
        out: The backbone folder; an interrupted finetuning in it is resumed.
        splits: The data, if it is loaded already; None loads what the plan names.
        backbone_file: `file.py:function`, for a plan whose backbone is `python`.
        data_file: `file.py:function` that returns the splits, for a plan whose data is `python`.
        data_root: Folder that the data has moved to; the folder stores it.
        device: cpu, cuda or mps.
        threads: CPU threads; None leaves torch's number.
        progress: Called with the state of each kind of work.
        clock: In seconds.

    Raises:
        PlanError: The folder holds another plan's backbone, or the device is not available.
        BundleError: The folder has files of the names that finetuning writes, but no backbone.
        OfframpError: Something else is wrong with the plan, the data or the folder.
    """
    check_device(device)
    check_kind(plan, FinetunePlan, "plan", "Give a FinetunePlan, as load_finetune_plan reads it.")
    folder = make_folder(as_path(out, "out"))
    data = RunData(plan, splits, data_file, data_root)
    plan = data.plan
    earlier = finished_result(folder, data)
    if earlier is not None:
        shutil.rmtree(folder / WORK, ignore_errors=True)  # a kill may have left it
        return earlier
    start = Start.of(plan, data, backbone_file)
    _write_plan(folder, plan)
    check_files(start.splits, folder / WORK, progress)
    began = clock()
    facts = _trained(folder, plan, start, device, threads, progress)
    facts["seconds"] = round(clock() - began, 1)
    _write(folder, plan, start, facts)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    names = start.splits.target_names
    return _result(folder, facts, names, f"finetuned in {facts['seconds']} s")


def _trained(
    folder: Path,
    plan: FinetunePlan,
    start: Start,
    device: str,
    threads: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Train all stages and measure the weights that were kept."""
    measure = measure_of(plan.task, start.splits.target_names)
    history: dict[str, Any] = {}
    with torch_switches(threads=threads), readers() as workers:
        for stage in stages_of(plan, start, folder / WORK, device):
            stage.run(workers, measure, progress)
            history[stage.name] = [asdict(epoch) for epoch in stage.finetuner.history]
        test = loader(start, "test", device)
        used = torch.get_num_threads()
        score, rmse = stage.finetuner.test(in_order(test, plan.train.batch_size, workers))
    kept = stage.finetuner.kept_epoch
    return {
        "network": start.facts["name"],
        "num_outputs": start.num_outputs,
        "trains": plan.trains,
        "task": plan.task,
        "epoch": kept.epoch,
        "validation": abs(kept.validation_score),
        "test": abs(score),
        "validation_rmse": kept.validation_rmse,
        "test_rmse": rmse,
        "warnings": list(start.warnings),
        "history": plain(history),
        "environment": environment(device_name(device), used),
    }


def finished_result(folder: Path, data: RunData[FinetunePlan]) -> FinetuneResult | None:
    """The finished finetuning of this plan in a folder, or None; the folder may be missing.

    Raises:
        PlanError: The folder holds another plan's backbone.
        DataError: The data or the first weights have changed since.
        BundleError: The folder has files of the names that finetuning writes, but no backbone.
    """
    _check_same_plan(folder, data.plan)
    if is_stored(folder):
        return _finished(folder, data.plan, data.splits)
    check_free(folder, NAMES)
    return None


def _check_same_plan(folder: Path, plan: FinetunePlan) -> None:
    if not (folder / PLAN).exists():
        return
    if is_stored(folder):
        read_folder(folder, BACKBONE)  # a run's folder is refused as such
    if different := load_finetune_plan(folder / PLAN).differences(plan):
        raise PlanError(
            f"{folder} holds a backbone that was finetuned by another plan; the two plans differ "
            f"in {', '.join(different)}. Choose another --out, or delete that folder to start over."
        )


def _finished(folder: Path, plan: FinetunePlan, splits: Splits) -> FinetuneResult:
    """Read a finished folder, whose data and first weights must be those of then."""
    stored = read_folder(folder, BACKBONE, NAMES)
    manifest = stored.manifest
    keys = data_keys(splits)
    changed = [f"{name} data" for name in keys if manifest["data"].get(name) != keys[name]]
    known = manifest["start_sha256"]
    there = plan.backbone.weights is not None and Path(plan.backbone.weights).exists()
    if there and known is not None and weights_digest(plan.backbone.weights) != known:
        changed.append("first weights")
    if changed:
        raise DataError(
            f"{folder} holds a finished backbone, but the {', '.join(changed)} of its plan have "
            "changed since. Choose another --out to train again, or delete that folder."
        )
    facts = {**manifest["result"], "history": json.loads(stored.files[HISTORY])}
    done = "nothing was trained: this backbone is already finished"
    return _result(folder, facts, manifest["class_names"], done)


def _write_plan(folder: Path, plan: FinetunePlan) -> None:
    path = folder / PLAN
    if not path.exists() or load_finetune_plan(path) != plan:
        write_bytes(path, plan.to_yaml().encode())


def _write(folder: Path, plan: FinetunePlan, start: Start, facts: dict[str, Any]) -> None:
    """Replace the files of the folder as a whole."""
    result = {name: facts[name] for name in facts if name not in ("history", "environment")}
    content = {
        "backbone": start.facts,
        "start_sha256": start.facts["weights_sha256"],
        "plan": plan.model_dump(mode="json"),
        "data": data_keys(start.splits),
        "data_function": start.splits.origin if plan.data.kind == "python" else "",
        "class_names": list(start.splits.target_names),
        "preprocess": [each.model_dump(mode="json") for each in start.splits.inputs],
        "result": result,
    }
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()  # may be shared
        for name, tensor in start.network.state_dict().items()
    }
    with changing(folder, BACKBONE, content, keep=[PLAN]) as staged:
        write_bytes(staged / WEIGHTS, tensor_bytes(tensors))
        write_bytes(staged / HISTORY, _json(facts["history"]))
        write_bytes(staged / ENVIRONMENT, _json(facts["environment"]))


def _result(
    folder: Path, facts: Mapping[str, Any], target_names: Sequence[str], work_done: str
) -> FinetuneResult:
    return FinetuneResult(
        folder=str(folder),
        backbone=facts["network"],
        num_outputs=facts["num_outputs"],
        trains=facts["trains"],
        measure=measure_of(facts["task"], target_names),
        epoch=facts["epoch"],
        validation=facts["validation"],
        test=facts["test"],
        validation_rmse=facts["validation_rmse"],
        test_rmse=facts["test_rmse"],
        history=facts["history"],
        warnings=tuple(facts.get("warnings", ())),
        seconds=facts["seconds"],
        work_done=work_done,
    )


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
