"""MultiExit: a frozen backbone with its branches, which answers at every exit."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from offramp.answering.inputs import NONE, Numbers, absent_of, refusal
from offramp.arguments import as_path, check_kind
from offramp.backbones.staged import StagedBackbone, check_staged
from offramp.cost import joined
from offramp.data import Samples, as_samples
from offramp.doubts import doubts_of_answers, warn_of
from offramp.errors import BundleError, CutError, PlanError
from offramp.multiexit.absent import refusing
from offramp.multiexit.answers import Answers, answer_samples, device_of, gathered, walk_exits
from offramp.multiexit.costs import ExitTimings as ExitTimings
from offramp.multiexit.costs import branch_flops
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
from offramp.task import Task, num_answers

_PRECISIONS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
}


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
        """Which branch answers at each cut that has one, in words; with its seed, if several."""
        several = len({trial.seed for trial in self.trials}) > 1
        return ", ".join(
            f"{cut}: {trial.label}{f' (seed {trial.seed})' if several else ''}"
            for cut, trial in self.chosen.items()
        )

    def walk(self, *inputs: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        """Answer exit by exit, (name, (B, K)); a stage runs only when its exit is requested.

        None in place of an input means that it is absent. What needs it is not computed, and the
        exits that cannot answer without it are left out.

        Raises:
            DataError: After the last answer, names the exits that were left out.
        """
        self.backbone.check_inputs(inputs, absent=True)
        yield from walk_exits(self.backbone, self.chosen, self.task, inputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answers of all exits: (E, B, K).

        Raises:
            DataError: An input is None, and exits cannot answer without it.
        """
        self.backbone.check_inputs(inputs, absent=True)
        if refused := self._refusing(absent_of(inputs)):
            others = [name for name in self.names if name not in refused]
            raise refusal(self.backbone.inputs.names, refused, others)
        return torch.stack([answer for _, answer in self.walk(*inputs)])

    def exits_without(self, without: int | str | Iterable[int | str]) -> tuple[str, ...]:
        """Names of the exits that answer without these inputs, named or counted from 0.

        Raises:
            PlanError: There is no such input.
        """
        refused = self._refusing(self.backbone.inputs.numbers(without))
        return tuple(name for name in self.names if name not in refused)

    def _refusing(self, absent: Numbers) -> dict[str, Numbers]:
        return refusing(self.backbone.inputs, self.chosen.values(), absent)

    def exit_stage_flops(self) -> tuple[int, ...]:
        """FLOPs between one exit and the next (2mac, one sample): stages joined up to each exit."""
        ends = (*self.backbone.cuts, FINAL)
        return joined(ends, tuple(self.chosen), self.backbone.stage_flops())

    def exit_branch_flops(self) -> tuple[int, ...]:
        """FLOPs of each exit's own branch (2mac, one sample); 0 for the last exit."""
        return (*(branch_flops(self.backbone, t) for t in self.chosen.values()), 0)

    def collect(
        self,
        data: Any,
        *,
        batch_size: int = 64,
        timings: ExitTimings | None = None,
        split: str = "",
        without: int | str | Iterable[int | str] = (),
        progress: Progress = silent,
    ) -> ExitOutputs:
        """Collect the answers of every exit on a data set, with costs, as plain arrays.

        Args:
            data: A map-style data set of (input or tuple of inputs, label), or a pair of arrays.
            batch_size: Samples per pass; the last batch is shorter.
            timings: Measured times, `offramp.run.measure.measure_model(model).of_exits(model)`.
                Without them the result has no milliseconds.
            split: Name of the split, stored in `source`.
            without: Inputs to leave out for all samples, named or counted from 0. The result holds
                only the exits that answer without them, and what they need is not computed. Where
                the backbone itself needs one, the last of these exits is the network's end, and its
                branch is counted in its stage.
            progress: Called after each batch.

        `scores` come from the error predictors, if every branch has one.

        Raises:
            DataError: A sample lacks an input that an exit needs, or no exit answers without the
                inputs left out.
            PlanError: There is no such input, or timings are given, which hold for all inputs.

        Warns:
            DoubtWarning: The final exit hardly does better than guessing, is far below an early
                exit, or gives probabilities; with likely causes.
        """
        check_kind(split, str, "split", 'Give a name, such as "calibration".')
        samples = as_samples(data)
        absent = self.backbone.inputs.numbers(without)
        if absent and timings is not None:
            raise PlanError(
                "timings are measured with all inputs, so they do not apply with `without`. Leave "
                "out the timings or `without`."
            )
        trials = self._answering(absent)
        answers = self.answer(
            samples, trials, batch_size, split or "samples", progress, without=absent
        )
        outputs = self.as_outputs(answers, samples, timings, split, without=absent)
        if answers.last is not None:
            warn_of(doubts_of_answers(outputs))
        return outputs

    def _answering(self, absent: Numbers) -> tuple[Trial, ...]:
        """The chosen branches that answer without some inputs."""
        refused = self._refusing(absent)
        if refused.keys() == set(self.names):
            raise refusal(self.backbone.inputs.names, refused, ())
        return tuple(trial for cut, trial in self.chosen.items() if cut not in refused)

    def as_outputs(
        self,
        answers: Answers,
        samples: Samples,
        timings: ExitTimings | None,
        split: str,
        without: Numbers = NONE,
    ) -> ExitOutputs:
        """The exits' part of the answers to all of `samples`, with the costs of the exits."""
        answers = answers.of(self._answering(without))
        source = {**self.source(), "data": samples.content_key, "split": split}
        if names := self.info.class_names:
            source["class_names"] = list(names)
        if without:
            source["without"] = [self.backbone.inputs.names[number] for number in sorted(without)]
        return gathered(self.backbone, self.task, answers, samples, timings, without, source)

    def answer(
        self,
        samples: Samples,
        trials: Sequence[Trial],
        batch_size: int,
        what: str,
        progress: Progress,
        *,
        without: Numbers = NONE,
    ) -> Answers:
        """Answer samples with every one of `trials`, in one pass of the backbone.

        Args:
            samples: The samples to answer.
            trials: Any trained branches on this backbone's cuts.
            batch_size: Samples per pass.
            what: Name of the data, for `progress`.
            progress: Called after each batch.
            without: Inputs to leave out for all samples; the trials answer without them.
        """
        return answer_samples(
            self.backbone,
            trials,
            samples,
            self.task,
            batch_size,
            f"answers on {what}",
            progress,
            without,
        )

    def source(self) -> dict[str, Any]:
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
