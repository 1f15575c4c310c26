"""OpenRun: a finished run with its preprocessing, policy and class names, for new samples."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from offramp.answer import Answer
from offramp.arguments import as_items, as_path, check_kind
from offramp.backbones.inputs import NONE, Numbers
from offramp.backbones.stage import Partly
from offramp.compute import torch_switches
from offramp.data.layout import IMAGES, SOUNDS
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
from offramp.run.names import POLICY, lacking
from offramp.run.sample import Prepared, Sample, WhereAbsent, files_of, no_files, prepare
from offramp.run.stored_model import plan_and_model
from offramp.spec import FINAL
from offramp.storage.folder import read_folder
from offramp.storage.manifest import RUN
from offramp.training.checks import check_device

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
        folder: A run folder of `offramp train`; its policies are used if it has some.
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
    files = [POLICY, lacking(POLICY, "*")]
    stored = read_folder(as_path(folder, "folder"), RUN, [WEIGHTS], files)
    _, model = plan_and_model(stored, backbone_file)
    own = [content for name, content in stored.files.items() if name != WEIGHTS]
    policies = [policy for content in own for policy in load_policies(content, scores)]
    return OpenRun(model.to(device), policies, threads=threads, clock=clock)


class OpenRun:
    """A model and its policies, which answer new samples and stop early as the policy says.

    `model` may also come from elsewhere, such as `fit_branches`.

    Each policy is for samples that have all inputs but those that it was calibrated without.

    Attributes:
        model: Backbone and branches.
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
        self._pools: dict[Numbers, list[ExitPolicy]] = {}
        every = as_items(policies, "policies", "Give a list of policies, or none.")
        for place, policy in enumerate(every):
            check_policy(policy, f"policies[{place}]")
            absent = model.backbone.inputs.numbers(policy.without)
            self._pools.setdefault(absent, []).append(policy)
        self._threads, self._clock = threads, clock
        self._source = model.source()
        self._costs: dict[tuple[tuple[str, ...], Numbers], _Costs] = {}
        self._whole_flops = sum(self._flops(model.names, NONE)[0])
        self._together: bool | None = None

    @property
    def policies(self) -> tuple[ExitPolicy, ...]:
        """One policy, the policies of a menu from the strictest on, or none."""
        return tuple(self._pools.get(NONE, ()))

    @property
    def policies_without(self) -> Mapping[tuple[str, ...], tuple[ExitPolicy, ...]]:
        """The same for samples that lack inputs, by the names of these."""
        found = [(self._names(absent), pool) for absent, pool in self._pools.items() if absent]
        return {names: tuple(pool) for names, pool in found}

    @property
    def no_files(self) -> str:
        """Reason why files cannot be answered; empty if they can."""
        return no_files(self.model)

    @property
    def file_endings(self) -> tuple[str, ...]:
        """Endings of the files that it answers, those of its first input."""
        first = self.model.info.inputs[0] if self.model.info.inputs else None
        return (SOUNDS if isinstance(first, SpectrogramPreprocess) else IMAGES).endings

    @property
    def endings_beside(self) -> tuple[str, ...]:
        """Endings of the files that belong to these, such as the sounds of pictures."""
        return SOUNDS.endings if len(self.model.info.inputs) > 1 else ()

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
        return files_of(self.model, name, absent)

    def run(self, sample: Sample, policy: ExitPolicy | float | None = None) -> Answer:
        """Answer one sample.

        Args:
            sample: A path, the bytes of a picture file, pixels uint8 (H, W) or (H, W, C), or an
                input as the backbone reads it, without batch axis; a tuple for several inputs, with
                None for one that is absent. The exits that can do without it then answer, the last
                of them where no threshold is reached before.
            policy: An ExitPolicy; a limit of the run's menu, such as 0.01; or None for the run's
                own: the strictest of a menu, and the full network if there is no policy. Where
                inputs are absent the run's policies for such samples are meant, if there are some.
                An ExitPolicy that was calibrated without an input leaves it out of any sample.

        An answer without an input is `promised` only under a policy that was calibrated without it.

        Raises:
            DataError: The sample cannot be read, the run takes no files, or no exit answers without
                what is absent.
            ShapeError: It is not what the model reads, or the policy is for other exits.
            PlanError: No policy of the run promises that limit.
        """
        return self._answer([sample], policy)[0]

    def run_batch(
        self, samples: Iterable[Sample], policy: ExitPolicy | float | None = None
    ) -> list[Answer]:
        """Answer several samples, up to 64 at a time; each gets the exit that it gets alone.

        Arguments and errors are those of `run`; an error names the sample by its number.
        """
        every = as_items(samples, "samples", "Give a list of samples.")
        step = _TOGETHER if len(every) > 1 and self._may_run_together() else 1
        found: list[Answer] = []
        for first in range(0, len(every), step):
            found += self._answer(every[first : first + step], policy, first)
        return found

    def chosen(
        self, policy: ExitPolicy | float | None = None, absent: Iterable[str] = ()
    ) -> ExitPolicy | None:
        """The policy that `run` uses, with its promise if that holds here.

        Args:
            policy: As for `run`.
            absent: Inputs that the samples lack.

        Returns:
            None where the full network answers, or the last exit that can do without.

        Warns:
            PromiseWarning: It was certified for another engine, precision or model.

        Raises:
            ShapeError: It is for other exits.
            PlanError: No policy of the run promises that limit, or its score does not fit.
        """
        lacking = self.model.backbone.inputs.numbers(absent)
        self._check_answered(lacking)
        found = self._found(policy, lacking)
        if found is None:
            return None
        without = self.model.backbone.inputs.numbers(found.without)
        found.check_exits(self.model.exits_without(without))
        found.score.check_task(self.model.task)
        found = found.on({**self._source, "without": found.without})
        return found if lacking <= without else self._only(found, lacking | without)

    def _found(self, policy: ExitPolicy | float | None, lacking: Numbers) -> ExitPolicy | None:
        """The policy given, or else the one for such samples, or else that for all inputs."""
        if isinstance(policy, ExitPolicy):
            return policy
        whole, own = self.policies, self._pools.get(lacking, [])
        if policy is None:
            return next(iter((*own, *whole)), None)
        remedy = "Give an ExitPolicy, a limit of the run's menu such as 0.01, or None."
        check_kind(policy, (float, int), "policy", remedy)
        goals = {each.promise.goal for each in whole if each.promise is not None}
        fitting = [
            each
            for each in own
            if each.promise is not None
            and each.promise.limit <= policy
            and (not goals or each.promise.goal in goals)
        ]
        return fitting[-1] if fitting else policy_at(whole, policy)

    def _only(self, policy: ExitPolicy, absent: Numbers) -> ExitPolicy:
        """The part of a policy for the exits that answer without some inputs, not promised."""
        able = self.model.exits_without(absent)
        return policy.only([name for name in policy.names if name in able])

    def _may_run_together(self) -> bool:
        if self._together is None:
            self._together = rows_are_apart(self.model)
        return self._together

    def _answer(
        self,
        samples: Sequence[Sample],
        policy: ExitPolicy | float | None,
        first: int | None = None,
    ) -> list[Answer]:
        """Answer samples together. Errors name a sample by its number, counted from `first`."""
        given = policy.without if isinstance(policy, ExitPolicy) else ()
        without = self.model.backbone.inputs.numbers(given)
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
            rule = self.chosen(policy, self._names(absent))
            rule = rule or self._only(full_network(self.model), absent)
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

    def _names(self, inputs: Numbers) -> tuple[str, ...]:
        return tuple(self.model.backbone.inputs.names[number] for number in sorted(inputs))

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
            absent=self._names(absent),
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
