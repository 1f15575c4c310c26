"""MultiExit: a frozen backbone with its branches, which answers at every exit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.arguments import as_path, check_kind
from offramp.backbones.staged import StagedBackbone, check_staged
from offramp.branches.predictor import surest
from offramp.compute import count_flops
from offramp.data import Samples, as_samples
from offramp.doubts import doubts_of_answers, warn_of
from offramp.errors import BundleError, CutError
from offramp.multiexit.answers import Answers, answer_samples, columns, device_of
from offramp.multiexit.saved import (
    WEIGHTS,
    ModelParts,
    describe_model,
    load_model,
    model_digest,
    write_weights,
)
from offramp.multiexit.trial import Epoch as Epoch
from offramp.multiexit.trial import Failed, ModelInfo, Trial
from offramp.outputs import ExitOutputs
from offramp.progress import Progress, silent
from offramp.spec import FINAL
from offramp.storage.folder import Contents, changing, is_stored, read_folder
from offramp.storage.manifest import RUN
from offramp.task import Task, num_answers, training_labels


@dataclass(frozen=True)
class ExitTimings:
    """Median milliseconds on this machine of each stage alone and of each branch alone."""

    stage_ms: tuple[float, ...]
    branch_ms: tuple[float, ...]


_PRECISIONS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
}
Number = TypeVar("Number", int, float)


class MultiExit(nn.Module):
    """A frozen backbone with at most one branch per cut; the last exit is the backbone's own.

    Shape:
        inputs (B, ...) -> (E, B, K), exits in graph order.
    """

    def __init__(
        self,
        backbone: StagedBackbone,
        chosen: Mapping[str, Trial],
        trials: Sequence[Trial] = (),
        *,
        failed: Sequence[Failed] = (),
        task: Task = "classification",
        info: ModelInfo | None = None,
    ) -> None:
        super().__init__()
        check_staged(backbone)
        check_kind(chosen, Mapping, "chosen", "Give a mapping from cuts to trials.")
        for cut, trial in chosen.items():
            check_kind(trial, Trial, f"chosen[{cut!r}]", "Give a Trial, as fit_branches makes it.")
        unknown = sorted(set(chosen) - set(backbone.cuts))
        if unknown or FINAL in chosen:
            raise CutError(
                f"branches are given for {unknown or [FINAL]}, but the backbone is cut at "
                f"{list(backbone.cuts)} (and {FINAL!r} is its own exit). Use those names."
            )
        self.backbone = backbone
        self.chosen = {name: chosen[name] for name in backbone.cuts if name in chosen}
        self.trials = tuple(trials)
        self.failed = tuple(failed)
        self.task: Task = task
        self.info = info or ModelInfo()
        self.branches = nn.ModuleList([trial.branch for trial in self.chosen.values()])
        self.eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and convert every trial's branch too, so that any of them can answer."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for trial in self.trials:
            if self.chosen.get(trial.cut) is not trial:
                trial.branch._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def device(self) -> torch.device:
        """Device of the model; the CPU if it has no weights."""
        return device_of(self)

    @property
    def precision(self) -> str:
        """Precision of the weights, such as "fp32" or "bf16"; several are joined by "+"."""
        found = {weight.dtype for weight in self.parameters() if weight.is_floating_point()}
        names = {_PRECISIONS.get(dtype, str(dtype)) for dtype in found or {torch.float32}}
        return "+".join(sorted(names))

    @property
    def num_outputs(self) -> int:
        """K, the outputs of every exit; two if the backbone gives one logit for two classes."""
        return num_answers(self.backbone.output_shape, self.task)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the exits, in order; the last is "final"."""
        return (*self.chosen, FINAL)

    @property
    def value_name(self) -> str:
        """Name of the value of a regression, such as people; empty if not known, or for classes."""
        names = self.info.class_names
        return names[0] if self.task == "regression" and len(names) == 1 else ""

    @property
    def exits_text(self) -> str:
        """Which branch answers at each cut that has one, in words."""
        return ", ".join(f"{cut}: {trial.label}" for cut, trial in self.chosen.items())

    def walk(self, *inputs: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Answer exit by exit, (name, (B, K)); a stage runs only when its exit is requested."""
        self.backbone.check_inputs(inputs)
        live: tuple[Tensor, ...] = inputs
        for name, stage in zip((*self.backbone.cuts, FINAL), self.backbone.stages, strict=True):
            live, taps = stage(live)
            if name in self.chosen:
                yield name, self.chosen[name].answer(taps)[0]
        yield FINAL, columns(live[0], self.task)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answers of all exits: (E, B, K)."""
        return torch.stack([answer for _, answer in self.walk(*inputs)])

    def exit_stage_flops(self) -> tuple[int, ...]:
        """FLOPs between one exit and the next (2mac, one sample): stages joined up to each exit."""
        return joined_per_exit(self.backbone, tuple(self.chosen), self.backbone.stage_flops())

    def exit_branch_flops(self) -> tuple[int, ...]:
        """FLOPs of each exit's own branch (2mac, one sample); 0 for the last exit."""
        return (*(_branch_flops(self.backbone, t) for t in self.chosen.values()), 0)

    def collect(
        self,
        data: Any,
        *,
        batch_size: int = 64,
        timings: ExitTimings | None = None,
        split: str = "",
        progress: Progress = silent,
    ) -> ExitOutputs:
        """Collect the answers of every exit on a data set, with costs, as plain arrays.

        Args:
            data: A map-style data set of (input or tuple of inputs, label), or a pair of arrays.
            batch_size: Samples per pass; the last batch is shorter.
            timings: Measured times, `offramp.run.measure.measure_model(model).of_exits(model)`.
                Without them the result has no milliseconds.
            split: Name of the split, stored in `source`.
            progress: Called after each batch.

        `scores` come from the error predictors, if every branch has one.

        Warns:
            DoubtWarning: The final exit hardly does better than guessing, is far below an early
                exit, or gives probabilities; with likely causes.
        """
        check_kind(split, str, "split", 'Give a name, such as "calibration".')
        samples = as_samples(data)
        trials = tuple(self.chosen.values())
        answers = self.answer(samples, trials, batch_size, split or "samples", progress)
        outputs = self.as_outputs(answers, samples, timings, split)
        warn_of(doubts_of_answers(outputs))
        return outputs

    def as_outputs(
        self, answers: Answers, samples: Samples, timings: ExitTimings | None, split: str
    ) -> ExitOutputs:
        """The exits' part of the answers to all of `samples`, with the costs of the exits."""
        answers = answers.of(tuple(self.chosen.values()))
        return ExitOutputs(
            outputs=np.concatenate([answers.by_branch, answers.final[None]]),
            labels=training_labels(samples.targets, self.num_outputs, task=self.task),
            task=self.task,
            stage_flops=np.array(self.exit_stage_flops(), np.int64),
            branch_flops=np.array(self.exit_branch_flops(), np.int64),
            names=self.names,
            stage_ms=None if timings is None else np.array(timings.stage_ms),
            branch_ms=None if timings is None else np.array(timings.branch_ms),
            scores=self._scores(answers),
            ids=samples.ids,
            groups=samples.groups,
            clusters=samples.clusters,
            source={
                **self.source(),
                "data": samples.content_key,
                "split": split,
                **({"class_names": list(names)} if (names := self.info.class_names) else {}),
            },
        )

    def _scores(self, answers: Answers) -> NDArray[np.float64] | None:
        if not self.chosen or not all(t.predicts_error for t in self.chosen.values()):
            return None
        return np.vstack([answers.scores, np.full(len(answers.final), surest(self.task))])

    def answer(
        self,
        samples: Samples,
        trials: Sequence[Trial],
        batch_size: int,
        what: str,
        progress: Progress,
    ) -> Answers:
        """Answer samples with every one of `trials`, in one pass of the backbone.

        Args:
            samples: The samples to answer.
            trials: Any trained branches on this backbone's cuts.
            batch_size: Samples per pass.
            what: Name of the data, for `progress`.
            progress: Called after each batch.
        """
        return answer_samples(
            self.backbone, trials, samples, self.task, batch_size, f"answers on {what}", progress
        )

    def source(self) -> dict[str, str]:
        """Engine, precision and digest of the model, for which a promise holds."""
        return {
            "engine": f"torch {torch.__version__}",
            "precision": self.precision,
            "model": self.digest(),
        }

    def digest(self) -> str:
        """SHA-256 over the backbone's and the chosen branches' weights and specs."""
        return model_digest(self.backbone, self.chosen)

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors` and `manifest.json`, replacing a model saved there before.

        Raises:
            BundleError: The folder cannot be written, holds a run, or has files of these names
                that `save` did not write. Nothing in it has changed.
        """
        folder = as_path(folder, "folder")
        if is_stored(folder) and "plan" in read_folder(folder, RUN).manifest:
            raise BundleError(
                f"{folder} holds a run of `offramp train`, whose report, outputs and policy would "
                "be deleted. Choose another folder for the model."
            )
        with changing(folder, RUN, describe_model(self.parts)) as staged:
            write_weights(self.parts, staged)

    @property
    def parts(self) -> ModelParts:
        """What `save` writes."""
        return ModelParts(
            self.backbone, self.chosen, self.trials, self.failed, self.task, self.info
        )

    @classmethod
    def load(
        cls,
        run: str | Path,
        backbone: nn.Module | None = None,
        branches: Sequence[type] = (),
    ) -> Self:
        """Read a model that `save` or `offramp train` wrote.

        Args:
            run: The folder.
            backbone: The module that was cut, if it was given in Python or by `--backbone`, with
                the weights that the branches were trained on.
            branches: Classes of branch settings that are not shipped with offramp.

        Raises:
            PlanError: It has branches of a kind that is neither shipped nor in `branches`.
            BundleError: A file was changed, or the backbone is a different one.
        """
        return cls.read(read_folder(as_path(run, "run"), RUN, [WEIGHTS]), backbone, branches)

    @classmethod
    def read(
        cls, stored: Contents, backbone: nn.Module | None = None, branches: Sequence[type] = ()
    ) -> Self:
        """The same from what was read of a folder, with `model.safetensors` among it."""
        parts = load_model(stored, backbone, branches)
        return cls(
            parts.backbone,
            parts.chosen,
            parts.trials,
            failed=parts.failed,
            task=parts.task,
            info=parts.info,
        )


def joined_per_exit(
    backbone: StagedBackbone, exits: tuple[str, ...], per_stage: Sequence[Number]
) -> tuple[Number, ...]:
    """Sum the stages from exit to exit, since a cut without a branch is not an exit."""
    sums: list[Number] = []
    running: Number = per_stage[0] - per_stage[0]
    for name, cost in zip((*backbone.cuts, FINAL), per_stage, strict=True):
        running += cost
        if name in exits or name == FINAL:
            sums.append(running)
            running -= running
    return tuple(sums)


def _branch_flops(backbone: StagedBackbone, trial: Trial) -> int:
    return count_flops(trial.branch, backbone.zero_taps(trial.cut))
