"""Forecast of a finetuning: what it would train, and disk, memory and time, without training."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from offramp.arguments import as_path, check_kind
from offramp.compute import device_name, torch_switches
from offramp.compute.parameters import count_params
from offramp.data import Splits
from offramp.machine import peak_memory
from offramp.progress import Progress, silent
from offramp.record import Record
from offramp.run.data import RunData
from offramp.run.finetune_plan import FinetunePlan
from offramp.run.finetune_stages import TrainingStage, stages_of
from offramp.run.finetune_start import Start
from offramp.run.finetuning import finished_result
from offramp.run.forecast import duration_text, free_text, memory_text
from offramp.run.names import WORK
from offramp.table import bytes_text
from offramp.training.checks import check_device
from offramp.training.finetune import batch_rows
from offramp.training.forecast import Clock
from offramp.training.mode import available_memory, free_disk
from offramp.training.state import load_state

_PROBE = "probe of the training"
_STATES = {
    "new": "a new finetuning",
    "resumes": "resumes the interrupted finetuning there",
    "finished": "a finished finetuning of this plan is there, so nothing would be trained",
}


@dataclass(frozen=True)
class StageForecast(Record):
    """What a stage of a finetuning would do.

    Attributes:
        name: `density` or `train`.
        epochs: Largest number of epochs.
        trained: Number of epochs that the interrupted finetuning has trained.
        finished: Whether that was all of it, since a stage may stop early.
        steps: Number of steps in an epoch.
        seconds: Estimate for the epochs that are left, if training does not stop early.
    """

    name: str
    epochs: int
    trained: int
    finished: bool
    steps: int
    seconds: float

    def __str__(self) -> str:
        done = f", {self.trained} trained already" if self.trained else ""
        return f"at most {self.epochs} epochs of {self.steps:,} steps{done}"


@dataclass(frozen=True)
class FinetuneForecast(Record):
    """What `offramp finetune` would do and need.

    Attributes:
        folder: The backbone folder.
        state: `new`, `resumes` or `finished`; if finished, only the samples are counted.
        samples: Number of samples of each split.
        backbone: Name of the network, or the user's file and function.
        num_outputs: Of the network.
        layers: Number of its layers with parameters, shared ones counted once.
        trained_layers: Number of these whose parameters are trained.
        parameters: Number of its parameters.
        trained_parameters: Number of these that are trained.
        stages: What each stage would do.
        disk_bytes: Largest size of the folder: training states and weights.
        weight_bytes: Size of the weights, which stay.
        disk_free: Free bytes on its disk.
        enough_disk: Whether it fits.
        memory_bytes: Estimate of the largest memory of the process, without that of an accelerator;
            None if the system does not say how much the probe took.
        memory_free: Bytes of memory that were free before the probe.
        test_seconds: Estimate for the test samples.
        device: Device for all work.
    """

    folder: str
    state: str
    samples: Mapping[str, int]
    backbone: str = ""
    num_outputs: int = 0
    layers: int = 0
    trained_layers: int = 0
    parameters: int = 0
    trained_parameters: int = 0
    stages: tuple[StageForecast, ...] = ()
    disk_bytes: int = 0
    weight_bytes: int = 0
    disk_free: int = 0
    enough_disk: bool = True
    memory_bytes: int | None = None
    memory_free: int = 0
    test_seconds: float = 0.0
    device: str = "cpu"

    @property
    def work_done(self) -> str:
        """Sentence on the work done, as in `FinetuneResult`."""
        return "nothing was trained or written"

    def __str__(self) -> str:
        lines = {
            "folder": f"{self.folder}: {_STATES[self.state]}",
            "samples": ", ".join(f"{count:,} {name}" for name, count in self.samples.items()),
        }
        if self.stages:
            lines |= self._needs_texts()
        return "\n".join(f"{name:<8} {value}" for name, value in lines.items())

    def _needs_texts(self) -> dict[str, str]:
        seconds = sum(stage.seconds for stage in self.stages)
        testing = duration_text(self.test_seconds)
        times = f"training at most {duration_text(seconds)}, testing {testing}"
        return {
            "network": f"{self.backbone}, {self.num_outputs} output{'s' * (self.num_outputs != 1)}",
            "trains": (
                f"{self.trained_layers} of {self.layers} layers, "
                f"{self.trained_parameters:,} of {self.parameters:,} parameters"
            ),
            **{stage.name: str(stage) for stage in self.stages},
            "disk": (
                f"at most {bytes_text(self.disk_bytes)} while it trains, then "
                f"{bytes_text(self.weight_bytes)}; {free_text(self.disk_free, self.enough_disk)}"
            ),
            "memory": memory_text(self.memory_bytes, self.memory_free),
            "time": (
                f"about {duration_text(seconds + self.test_seconds)} ({times})\n"
                f"{'':<8} estimated from a few batches on {self.device}; less where training stops "
                "early"
            ),
        }


def forecast_finetuning(
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
) -> FinetuneForecast:
    """Check a plan with its backbone, weights and data, and estimate what finetuning would need.

    Arguments and errors are those of `finetune`. Nothing is written. Only a few samples are
    decoded; `finetune` finds out whether all of them can be read.
    """
    check_device(device)
    check_kind(plan, FinetunePlan, "plan", "Give a FinetunePlan, as load_finetune_plan reads it.")
    folder, memory_free = as_path(out, "out"), available_memory()
    data = RunData(plan, splits, data_file, data_root)
    plan = data.plan
    if finished_result(folder, data) is not None:
        return FinetuneForecast(str(folder), "finished", _sizes(data.splits))
    start = Start.of(plan, data, backbone_file)
    count = 1 if plan.density is None else 2
    stages, judge = [], 0.0
    progress(_PROBE, 0, count)
    with torch_switches(threads=threads):
        for stage in stages_of(plan, start, folder / WORK, device):
            load_state(stage.state, stage.finetuner)
            found, judge = _forecast(stage, clock)
            stages.append(found)
            progress(_PROBE, len(stages), count)
    return FinetuneForecast(
        str(folder),
        "resumes" if (folder / WORK).exists() else "new",
        _sizes(start.splits),
        start.facts.get("function", start.facts["name"]),
        start.num_outputs,
        **_counts(start.network),
        stages=tuple(stages),
        **_bytes(start.network, len(stages), folder),
        memory_free=memory_free,
        test_seconds=judge * len(start.splits.test),
        device=device_name(device),
    )


def _sizes(splits: Splits) -> dict[str, int]:
    return {name: len(samples) for name, samples in splits.named().items()}


def _forecast(stage: TrainingStage, clock: Clock) -> tuple[StageForecast, float]:
    """What a stage would do, and the seconds of a sample that is tested."""
    epochs, finetuner, count = stage.settings.epochs, stage.finetuner, len(stage.train)
    trained, finished = finetuner.epoch, finetuner.done
    left = 0 if finished else epochs - trained
    pace = stage.pace(clock)
    each = pace.learn * count + pace.judge * len(stage.validation)
    steps = len(batch_rows(np.arange(count), stage.settings.batch_size))
    return StageForecast(stage.name, epochs, trained, finished, steps, left * each), pace.judge


def _counts(network: nn.Module) -> dict[str, Any]:
    """Layers and parameters, and how many of them a stage trains."""
    layers = [each for each in map(_own, network.modules()) if each]
    parameters = list(network.parameters())
    return {
        "layers": len(layers),
        "trained_layers": sum(any(each.requires_grad for each in layer) for layer in layers),
        "parameters": count_params(network),
        "trained_parameters": sum(each.numel() for each in parameters if each.requires_grad),
    }


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _bytes(network: nn.Module, num_stages: int, folder: Path) -> dict[str, Any]:
    """Bytes on disk and in memory.

    A state holds the weights now, those to keep, and two moments of each trained parameter. The one
    of an earlier stage holds only what it kept. A state is replaced by a new one beside it, which
    is made in memory.
    """
    weights = sum(map(_size, network.state_dict().values()))
    moments = 2 * sum(_size(each) for each in network.parameters() if each.requires_grad)
    state, held, free = 2 * weights + moments, peak_memory(), free_disk(folder)
    largest = 2 * state + (num_stages - 1) * weights
    return {
        "disk_bytes": largest,
        "weight_bytes": weights,
        "disk_free": free,
        "enough_disk": largest <= free,
        "memory_bytes": None if held is None else held + weights + 2 * state,
    }


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
