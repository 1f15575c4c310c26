"""OpenRun: a finished run with its preprocessing, policy and class names, for new samples."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from offramp.answer import Answer
from offramp.arguments import as_items, as_path, check_kind
from offramp.backbones.inputs import NONE, Numbers
from offramp.backbones.stage import Partly
from offramp.compute import torch_switches
from offramp.data.layout import IMAGES, SOUNDS, sounds_beside
from offramp.errors import DataError, ShapeError
from offramp.multiexit.absent import absent_of, refusal, refusing
from offramp.multiexit.costs import exit_flops
from offramp.multiexit.model import MultiExit
from offramp.multiexit.routing import Route, full_network, route, rows_are_apart
from offramp.multiexit.saved import WEIGHTS
from offramp.policy import ExitPolicy, Score, load_policies, policy_at
from offramp.policy.policy import check_policy
from offramp.policy.scores import scaled, softmax
from offramp.preprocess import SpectrogramPreprocess
from offramp.run.names import POLICY
from offramp.run.sample import Prepared, Sample, no_files, prepare
from offramp.run.stored_model import plan_and_model
from offramp.spec import FINAL
from offramp.storage.folder import read_folder
from offramp.storage.manifest import RUN
from offramp.training.checks import check_device

WhereAbsent = Literal["refuse", "answer"]
"""What a picture without its sound gets: an error, or an answer of the exits that need none."""
_Costs = tuple[list[int], list[int]]
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
        self._costs: dict[tuple[tuple[str, ...], Numbers], _Costs] = {}
        self._whole_flops = sum(self._flops(model.names, NONE)[0])
        self._together: bool | None = None

    @property
    def no_files(self) -> str:
        """Reason why files cannot be answered; empty if they can."""
        return no_files(self.model)

    @property
    def file_endings(self) -> tuple[str, ...]:
        """Endings of the files that it answers, those of its first input."""
        first = self.model.info.inputs[0] if self.model.info.inputs else None
        return (SOUNDS if isinstance(first, SpectrogramPreprocess) else IMAGES).endings

    def files_of(
        self, name: str, absent: WhereAbsent = "refuse"
    ) -> str | tuple[str | Path | None, ...]:
        """The files of one sample: this one, and the sound beside it if the model also reads one.

        Args:
            name: The file.
            absent: What happens where there is no sound: `answer` gives None in its place.

        Raises:
            DataError: There is no sound file of the same name, or several; the model reads other
                files; or there is no sound, and no exit answers without.
        """
        if len(self.model.info.inputs) < 2 or not Path(name).exists():
            return name  # whoever reads it says that it is missing
        kinds = [each.kind for each in self.model.info.inputs]
        if kinds != ["image", "spectrogram"]:
            raise DataError(
                f"{name} alone is not a sample: the model reads {' and '.join(kinds)}. In Python, "
                "give OpenRun.run a tuple with one of each."
            )
        found, able = sounds_beside(Path(name)), self.model.exits_without(1)
        if len(found) > 1:
            raise DataError(
                f"{name} has {' and '.join(path.name for path in found)} beside it, and the model "
                "reads one sound. Leave one of them there."
            )
        if not found and (absent == "refuse" or not able):
            first, *others = SOUNDS.endings
            raise DataError(
                f"{name} has no sound file beside it, and the model also reads a sound. Put "
                f"{Path(name).with_suffix(first).name} there (or {', '.join(others)})"
                + (
                    f", or let {_named(able)} answer without it: --absent answer "
                    "(in Python, absent='answer')."
                    if able
                    else ". No exit of this model answers without it."
                )
            )
        return name, (found[0] if found else None)

    def run(self, sample: Sample, policy: ExitPolicy | float | None = None) -> Answer:
        """Answer one sample.

        Args:
            sample: A path, the bytes of a picture file, pixels uint8 (H, W) or (H, W, C), or an
                input as the backbone reads it, without batch axis; a tuple for several inputs, with
                None for one that is absent. The exits that can do without it then answer, the last
                of them where no threshold is reached before.
            policy: An ExitPolicy; a limit of the run's menu, such as 0.01; or None for the run's
                own: the strictest of a menu, and the full network if there is no policy. A policy
                that was calibrated without an input leaves it out.

        An answer without an input is `promised` only under a policy that was calibrated without it.

        Raises:
            DataError: The sample cannot be read, the run takes no files, or no exit answers without
                what is absent.
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
        without = policy.without
        policy.check_exits(self.model.exits_without(without) if without else self.model.names)
        policy.score.check_task(self.model.task)
        return policy.on({**self._source, "without": without})

    def _may_run_together(self) -> bool:
        if self._together is None:
            self._together = rows_are_apart(self.model)
        return self._together

    def _answer(
        self, samples: Sequence[Sample], policy: ExitPolicy | None, first: int | None = None
    ) -> list[Answer]:
        """Answer samples together. Errors name a sample by its number, counted from `first`."""
        whole = policy or full_network(self.model)
        without = self.model.backbone.inputs.numbers(whole.without)
        prepared, taken = [], []
        alike: dict[Numbers, list[int]] = {}
        for place, sample in enumerate(samples):
            before = self._clock()
            try:
                prepared.append(prepare(self.model, sample, without))
                absent = absent_of(prepared[-1])
                self._check_answered(absent)
            except (DataError, ShapeError) as error:
                if first is None:
                    raise
                raise type(error)(f"sample {first + place}: {error}") from error
            taken.append(1000 * (self._clock() - before))
            alike.setdefault(absent, []).append(place)
        found: dict[int, Answer] = {}
        for absent, places in alike.items():
            rule = whole if absent == without else self._without(whole, absent)
            with torch_switches(threads=self._threads):
                some = _stacked([prepared[place] for place in places])
                routes = route(self.model, some, rule, self._clock)
            for place, each in zip(places, routes, strict=True):
                found[place] = self._as_answer(each, rule, taken[place], absent)
        return [found[place] for place in range(len(samples))]

    def _check_answered(self, absent: Numbers) -> None:
        """Refuse a sample that no exit answers."""
        if absent and not self.model.exits_without(absent):
            inputs = self.model.backbone.inputs
            raise refusal(inputs, refusing(inputs, self.model.chosen.values(), absent), ())

    def _without(self, policy: ExitPolicy, absent: Numbers) -> ExitPolicy:
        """The part of a policy for the exits that answer without some inputs, not promised."""
        able = self.model.exits_without(absent)
        return policy.only([name for name in policy.names if name in able])

    def _as_answer(self, found: Route, policy: ExitPolicy, ms: float, absent: Numbers) -> Answer:
        probabilities, label, name = None, None, None
        if self.model.task == "classification":
            last = found.exit == len(policy.thresholds)
            temperatures = None if last else policy.temperatures
            probabilities = softmax(scaled(found.outputs, temperatures, found.exit)[None])[0]
            label = int(found.outputs.argmax())
            names = self.model.info.class_names
            name = names[label] if label < len(names) else None
        spent = float(policy.path_cost(*self._flops(policy.names, absent))[found.exit])
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
            flops_saved=1 - spent / self._whole_flops,
            promised=policy.promise is not None,
            absent=tuple(self.model.backbone.inputs.names[each] for each in sorted(absent)),
        )

    def _flops(self, names: tuple[str, ...], absent: Numbers) -> _Costs:
        """FLOPs between these exits, and of their branches, without some inputs."""
        if (names, absent) not in self._costs:
            trials = [self.model.chosen[name] for name in names if name != FINAL]
            self._costs[names, absent] = exit_flops(self.model.backbone, trials, absent)
        return self._costs[names, absent]


def _stacked(samples: Sequence[Prepared]) -> Partly:
    """The inputs of samples that lack the same ones, with a batch axis."""
    columns = zip(*samples, strict=True)
    return tuple(
        None if column[0] is None else torch.from_numpy(np.stack(column)) for column in columns
    )


def _named(exits: Sequence[str]) -> str:
    return " or ".join(map(repr, exits))
