"""OpenRun: a finished run with its preprocessing, policy and class names, for new samples."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.answer import Answer
from offramp.arguments import as_items, as_path, check_kind
from offramp.compute import torch_switches
from offramp.data.layout import IMAGES, SOUNDS, sounds_beside
from offramp.errors import DataError, ShapeError
from offramp.multiexit.absent import absent_of, refusal, refusing
from offramp.multiexit.model import MultiExit
from offramp.multiexit.routing import Route, full_network, route, rows_are_apart
from offramp.multiexit.saved import WEIGHTS
from offramp.policy import ExitPolicy, Score, load_policies, policy_at
from offramp.policy.policy import check_policy
from offramp.policy.scores import scaled, softmax
from offramp.preprocess import ImagePreprocess, Preprocess, SpectrogramPreprocess
from offramp.run.names import POLICY
from offramp.run.stored_model import plan_and_model
from offramp.storage.folder import read_folder
from offramp.storage.manifest import RUN
from offramp.training.checks import check_device

Sample = Any
"""A path, the bytes of a picture or sound file, pixels uint8 (H, W) or (H, W, C), a sound (N,) at
the rate of the preprocessing, an input as the backbone reads it (without batch axis), or a tuple of
these for several inputs."""

_TOGETHER = 64


def open_run(
    folder: str | Path,
    *,
    backbone_file: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    scores: Sequence[Score] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> "OpenRun":
    """Open a finished run to answer new samples.

    Args:
        folder: A run folder of `offramp train`; its policy is used if it has one.
        backbone_file: `file.py:function`, for a run whose backbone is `python`.
        device: cpu, cuda or mps.
        threads: CPU threads; None leaves torch's number.
        scores: Scores of your own that the policy uses.
        clock: In seconds, for the times in an answer.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
        PlanError: The device is not available.
    """
    check_device(device)
    stored = read_folder(as_path(folder, "folder"), RUN, [WEIGHTS], [POLICY])
    _, model = plan_and_model(stored, backbone_file)
    own = stored.files.get(POLICY)
    policies = () if own is None else load_policies(own, scores)
    return OpenRun(model.to(device), policies, threads=threads, clock=clock)


class OpenRun:
    """A model and its policies, which answer new samples and stop early as the policy says.

    `model` may also come from elsewhere, such as `fit_branches`.

    Attributes:
        model: Backbone and branches.
        policies: One policy, the policies of a menu from the strictest on, or none.
    """

    def __init__(
        self,
        model: MultiExit,
        policies: Iterable[ExitPolicy] = (),
        *,
        threads: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_kind(model, MultiExit, "model", "Give a MultiExit, or open a run with open_run.")
        self.model = model
        self.policies = as_items(policies, "policies", "Give a list of policies, or none.")
        for place, policy in enumerate(self.policies):
            check_policy(policy, f"policies[{place}]")
        self._threads, self._clock = threads, clock
        self._source = model.source()
        self._costs = np.array(model.exit_stage_flops()), np.array(model.exit_branch_flops())
        self._together: bool | None = None

    @property
    def no_files(self) -> str:
        """Reason why files cannot be answered; empty if they can."""
        if self.model.info.inputs:
            return ""
        return (
            "this model does not know how to prepare files: its samples were prepared by other "
            "code. In Python, give OpenRun.run float32 arrays of shape "
            f"{_listed(self.model.backbone.input_shapes)}, prepared by that code."
        )

    @property
    def file_endings(self) -> tuple[str, ...]:
        """Endings of the files that it answers, those of its first input."""
        first = self.model.info.inputs[0] if self.model.info.inputs else None
        return (SOUNDS if isinstance(first, SpectrogramPreprocess) else IMAGES).endings

    def files_of(self, name: str) -> str | tuple[str | Path, ...]:
        """The files of one sample: this one, and the sound beside it if the model also reads one.

        Raises:
            DataError: There is not one sound file of the same name, or the model reads other files.
        """
        if len(self.model.info.inputs) < 2:
            return name
        kinds = [each.kind for each in self.model.info.inputs]
        if kinds != ["image", "spectrogram"]:
            raise DataError(
                f"{name} alone is not a sample: the model reads {' and '.join(kinds)}. In Python, "
                "give OpenRun.run a tuple with one of each."
            )
        found = sounds_beside(Path(name))
        if len(found) != 1:
            beside = " and ".join(path.name for path in found) or "no sound file"
            raise DataError(
                f"{name} has {beside} beside it, and the model also reads a sound. Put one sound "
                f"of the same name there ({', '.join(SOUNDS.endings)})."
            )
        return name, found[0]

    def run(self, sample: Sample, policy: ExitPolicy | float | None = None) -> Answer:
        """Answer one sample.

        Args:
            sample: A path, the bytes of a picture file, pixels uint8 (H, W) or (H, W, C), or an
                input as the backbone reads it, without batch axis; a tuple for several inputs.
            policy: An ExitPolicy; a limit of the run's menu, such as 0.01; or None for the run's
                own: the strictest of a menu, and the full network if there is no policy.

        Raises:
            DataError: The sample cannot be read, or the run takes no files.
            ShapeError: It is not what the model reads, or the policy is for other exits.
            PlanError: No policy of the run promises that limit.
        """
        return self._answer([sample], self.chosen(policy))[0]

    def run_batch(
        self, samples: Iterable[Sample], policy: ExitPolicy | float | None = None
    ) -> list[Answer]:
        """Answer several samples, up to 64 at a time; each gets the exit that it gets alone.

        Arguments and errors are those of `run`; an error names the sample by its number.
        """
        every = as_items(samples, "samples", "Give a list of samples.")
        chosen = self.chosen(policy)
        step = _TOGETHER if len(every) > 1 and self._may_run_together() else 1
        found: list[Answer] = []
        for first in range(0, len(every), step):
            found += self._answer(every[first : first + step], chosen, first)
        return found

    def chosen(self, policy: ExitPolicy | float | None = None) -> ExitPolicy | None:
        """The policy that `run` uses, with its promise if that holds here.

        Warns:
            PromiseWarning: It was certified for another engine, precision or model.

        Raises:
            ShapeError: It is for other exits.
            PlanError: No policy of the run promises that limit, or its score does not fit.
        """
        if policy is None and not self.policies:
            return None
        if policy is None:
            policy = self.policies[0]
        if not isinstance(policy, ExitPolicy):
            remedy = "Give an ExitPolicy, a limit of the run's menu such as 0.01, or None."
            check_kind(policy, (float, int), "policy", remedy)
            policy = policy_at(self.policies, policy)
        policy.check_exits(self.model.names)
        policy.score.check_task(self.model.task)
        return policy.on(self._source)

    def _may_run_together(self) -> bool:
        if self._together is None:
            self._together = rows_are_apart(self.model)
        return self._together

    def _answer(
        self, samples: Sequence[Sample], policy: ExitPolicy | None, first: int | None = None
    ) -> list[Answer]:
        """Answer samples together. Errors name a sample by its number, counted from `first`."""
        prepared, taken = [], []
        for place, sample in enumerate(samples):
            before = self._clock()
            try:
                prepared.append(self._prepared(sample))
            except (DataError, ShapeError) as error:
                if first is None:
                    raise
                raise type(error)(f"sample {first + place}: {error}") from error
            taken.append(1000 * (self._clock() - before))
        inputs = tuple(torch.from_numpy(np.stack(column)) for column in zip(*prepared, strict=True))
        rule = policy or full_network(self.model)
        with torch_switches(threads=self._threads):
            routes = route(self.model, inputs, rule, self._clock)
        return [self._as_answer(each, rule, ms) for each, ms in zip(routes, taken, strict=True)]

    def _as_answer(self, found: Route, policy: ExitPolicy, ms: float) -> Answer:
        probabilities, label, name = None, None, None
        if self.model.task == "classification":
            last = found.exit == len(policy.thresholds)
            temperatures = None if last else policy.temperatures
            probabilities = softmax(scaled(found.outputs, temperatures, found.exit)[None])[0]
            label = int(found.outputs.argmax())
            names = self.model.info.class_names
            name = names[label] if label < len(names) else None
        spent = float(policy.path_cost(*self._costs)[found.exit])
        return Answer(
            outputs=found.outputs,
            probabilities=probabilities,
            label=label,
            class_name=name,
            exit=policy.names[found.exit],
            score=found.score if np.isfinite(found.score) else None,
            stage_ms=found.stage_ms,
            total_ms=ms + sum(found.stage_ms),
            flops=int(spent),
            flops_saved=1 - spent / float(self._costs[0].sum()),
            promised=policy.promise is not None,
        )

    def _prepared(self, sample: Sample) -> list[NDArray[Any]]:
        """The inputs of one sample, without batch axis."""
        parts = sample if isinstance(sample, tuple) else (sample,)
        self._check_present(parts)
        shapes = self.model.backbone.input_shapes
        known = self.model.info.inputs or (None,) * len(parts)
        given = [self._input(*each) for each in zip(parts, known, strict=False)]
        if tuple(each.shape for each in given) != shapes:
            raise ShapeError(
                f"the input has shape {_listed(each.shape for each in given)}, and the model reads "
                f"{_listed(shapes)} (without the batch axis). Prepare it like the samples that the "
                "model was trained with."
            )
        for each, dtype in zip(given, self.model.backbone.input_dtypes, strict=True):
            if dtype.is_floating_point != (each.dtype.kind == "f"):
                raise ShapeError(
                    f"the input is {each.dtype}, and the model reads {str(dtype).partition('.')[2]}"
                    ". Prepare it like the samples that the model was trained with."
                )
        return given

    def _check_present(self, parts: Sequence[Any]) -> None:
        """Refuse a sample with None for one of several inputs, which the final exit needs."""
        model, absent = self.model, absent_of(parts)
        if not absent or not 1 < len(parts) == len(model.backbone.input_shapes):
            return
        refused = refusing(model.backbone.inputs, model.chosen.values(), absent)
        if refused:
            raise refusal(model.backbone.inputs, refused, model.exits_without(absent))

    def _input(self, part: Any, preprocess: Preprocess | None) -> NDArray[Any]:
        """One input, prepared."""
        if isinstance(part, str | Path | bytes):
            return self._decoded(part, preprocess)
        if not isinstance(part, np.ndarray):
            raise DataError(
                f"a sample cannot be a {type(part).__name__}. Give a path, the bytes of a picture "
                "file, or a numpy array (a tuple of these for several inputs)."
            )
        if part.dtype == np.uint8 and isinstance(preprocess, ImagePreprocess):
            return preprocess(part)
        if part.ndim == 1 and isinstance(preprocess, SpectrogramPreprocess):
            return preprocess(part)
        if part.dtype.kind != "f":
            return part
        if not np.isfinite(part).all():
            raise DataError("the input has values that are not finite. Give finite numbers.")
        return part if part.dtype == np.float64 else part.astype(np.float32)

    def _decoded(
        self, part: str | Path | bytes, preprocess: Preprocess | None
    ) -> NDArray[np.float32]:
        if preprocess is None:
            raise DataError(self.no_files)
        kind = "sound" if isinstance(preprocess, SpectrogramPreprocess) else "picture"
        what = f"the {kind}" if isinstance(part, bytes) else str(part)
        try:
            return preprocess(part if isinstance(part, bytes) else Path(part).read_bytes())
        except Exception as error:  # pillow's decoders raise many kinds
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            raise DataError(f"{what} cannot be read: {reason}.") from error


def _listed(shapes: Iterable[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))
