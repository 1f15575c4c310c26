"""The model's own answer on the sample, which its stages have to equal.

Only frozen copies run, without gradients and outside any autocast, so that both sides use the same
kernels: for some matrix products torch chooses another kernel if a weight requires gradients, and
the last bits differ (6e-7 in timm's pit models). The user's own module never runs.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from offramp.backbones.frozen import frozen_copy
from offramp.backbones.tracing import input_names
from offramp.backbones.values import does_not_run
from offramp.compute import seeded
from offramp.errors import CutError, ShapeError

ACROSS_BATCHES = 1e-3
"""Greatest difference of one row's answer in two batches, as a share of the greatest answer: other
sizes take other kernels, while batch statistics in use change an answer by tenths."""

WITH_DYNAMIC_INT8 = 0.1
"""The same where int8 layers find the scale of their input over the whole batch, which moves what
each of them rounds."""

ROUNDING_IN_DOUBLE = 1e-8
"""The same in double precision, where rounding is ten million times finer than at first."""

ON_ACCELERATORS = 1e-5
"""The same between stages and model off the CPU, where a kernel may add up in any order."""


@dataclass(frozen=True, eq=False)
class Expected:
    """Answers of a model on the sample, and on its first row together with other rows.

    Attributes:
        warm: A frozen copy that has run, so that buffers filled by the first call are filled.
        answer: Answer on the sample; None if the model does not give one tensor.
        group: The first row and others; None if the model does not take another batch size.
        group_answer: Answer on the group.
        drawn: Normal values in the sample's shape, which show what a sample of zeros hides; None if
            an input does not hold floats, or the model does not take such values.
        drawn_answer: Answer on these.
    """

    original: nn.Module
    warm: nn.Module
    sample: tuple[Tensor, ...]
    answer: Tensor | None
    group: tuple[Tensor, ...] | None = None
    group_answer: Tensor | None = None
    drawn: tuple[Tensor, ...] | None = None
    drawn_answer: Tensor | None = None

    def check(self, stages: nn.Module, *, group: bool) -> None:
        """Refuse stages that do not give the model's answer, bit for bit.

        Args:
            stages: All of them as one module.
            group: Compare on the group too.

        Raises:
            CutError: Names the cause where it can be found.
        """
        self._compare(stages, self.sample, self.answer)
        if self.drawn is not None:
            self._compare(stages, self.drawn, self.drawn_answer)
        if group and self.group is not None:
            try:
                self._compare(stages, self.group, self.group_answer)
            except ShapeError as error:
                raise CutError(
                    f"The model works for one batch size only: {error} Write its forward for any "
                    "batch size, such as x.flatten(1) for x.view(8, -1)."
                ) from error

    def _compare(self, stages: nn.Module, inputs: Sequence[Tensor], answer: Tensor | None) -> None:
        given = run_alone(stages, inputs, seed=2)
        if answer is not None and not _same(given, answer):
            raise CutError(
                f"The stages do not reproduce the answer of {type(self.original).__name__} on "
                f"the sample ({_difference(given, answer)}): {self._cause(inputs)}"
            )

    def _cause(self, inputs: Sequence[Tensor]) -> str:
        if (unsteady := _unsteady(self.original, inputs)) is not None:
            return unsteady
        with _AutocastWatch() as watch:
            run_alone(frozen_copy(self.original), inputs)
        if watch.seen:
            return (
                "it computes under torch.autocast, which a graph of operations does not record. "
                "Take autocast out of the model and cut model.to(dtype), or put the part under it "
                "into a module that `leaves` keeps whole."
            )
        return (
            "its forward does something that a graph of operations does not record (a context "
            "manager, a check of a tensor's class, an overridden __call__ of a leaf). Put that "
            "part into a module of its own and keep it whole: cut(..., leaves=[ThatModule])."
        )


def consult(model: nn.Module, sample: tuple[Tensor, ...]) -> Expected:
    """Run a frozen copy of a model on the sample, with other rows, and on normal values.

    Raises:
        CutError: It does not run on the sample, or its answer is not a function of one row: it is
            random, depends on earlier calls, or on other rows of the batch.
    """
    copy = frozen_copy(model)
    input_names(copy, len(sample))
    try:
        answer = run_alone(copy, sample)
    except Exception as error:
        raise does_not_run(sample, error) from error
    if not isinstance(answer, Tensor):
        return Expected(model, copy, sample, None)
    if not answer.ndim:
        raise CutError(
            f"{type(model).__name__} returns one number for the whole batch, so no sample has an "
            "answer of its own. Wrap it in a module that returns one row per sample."
        )
    drawn, drawn_answer = _drawn(copy, sample)
    group = _group(sample)
    try:
        beside = run_alone(copy, group, seed=1)
    except Exception:  # whatever a model raises on a batch size that it was not made for
        if not _same(run_alone(copy, sample, seed=1), answer):
            raise CutError(_unsteady(model, sample) or _MIXED) from None
        return Expected(model, copy, sample, answer, drawn=drawn, drawn_answer=drawn_answer)
    alike = _rows_agree(answer, beside, _across_batches(copy))
    if not alike and not _agree_in_double(model, sample, group):
        raise CutError(_unsteady(model, sample) or _MIXED)
    return Expected(model, copy, sample, answer, group, beside, drawn, drawn_answer)


_MIXED = (
    "The model's answer for one sample depends on the other samples of the batch, so no exit could "
    "be measured or trusted. Normalise with stored statistics; batch norm with "
    "track_running_stats=False uses batch statistics even in evaluation mode."
)


def run_alone(model: nn.Module, inputs: Sequence[Tensor], seed: int = 0) -> Any:
    """Result of a module for copies of the inputs, run `alone`."""
    with alone(inputs, seed):
        return model(*(tensor.detach().clone() for tensor in inputs))


@contextmanager
def alone(inputs: Sequence[Tensor], seed: int = 0) -> Iterator[None]:
    """Inside: no gradients, no inference mode or autocast of the caller's, random streams apart."""
    devices = {tensor.device for tensor in inputs}
    with ExitStack() as stack:
        for context in (torch.inference_mode(False), torch.no_grad()):
            stack.enter_context(context)
        for device in sorted(devices, key=str):
            stack.enter_context(seeded("cut", seed, device=device))
            if torch.amp.is_autocast_available(device.type):
                stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


def _group(sample: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The first row of each input beside another one, or two: never as many as the sample has."""
    draw = torch.Generator().manual_seed(0)
    beside = 2 if len(sample[0]) == 2 else 1
    return tuple(
        torch.cat([tensor[:1], *(_other(tensor[:1], draw) for _ in range(beside))])
        for tensor in sample
    )


def _drawn(
    model: nn.Module, sample: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...] | None, Tensor | None]:
    """Normal values in the sample's shape and the answer on them, where the model gives one."""
    if not all(tensor.is_floating_point() for tensor in sample):
        return None, None
    draw = torch.Generator().manual_seed(1)
    drawn = tuple(_other(tensor, draw) for tensor in sample)
    try:
        return drawn, run_alone(model, drawn)
    except Exception:  # whatever a model raises on values that it was not made for
        return None, None


def _other(row: Tensor, draw: torch.Generator) -> Tensor:
    if row.is_floating_point():
        return torch.randn(row.shape, generator=draw).to(row)
    return row.flip(tuple(range(row.ndim)))


def _across_batches(model: nn.Module) -> float:
    dynamic = any("quantized.dynamic" in type(part).__module__ for part in model.modules())
    return WITH_DYNAMIC_INT8 if dynamic else ACROSS_BATCHES


def _rows_agree(answer: Tensor, beside: Any, share: float) -> bool:
    """Whether the first row is answered alike in both batches, to within a share of the answer."""
    if not isinstance(beside, Tensor) or beside.shape[1:] != answer.shape[1:]:
        return False
    one, two = (each[0].double() for each in (answer, beside))
    precision = torch.finfo(answer.dtype).eps if answer.is_floating_point() else 0.0
    limit = max(share, 16 * precision) * one[one.isfinite()].abs().max().item()
    return torch.allclose(one, two, rtol=0, atol=limit, equal_nan=True)


def _agree_in_double(model: nn.Module, *batches: Sequence[Tensor]) -> bool:
    """Whether only rounding parts the answers for the first row, as in very deep, untrained nets.

    Kernels round differently for other batch sizes, and such a network enlarges that without bound.
    """
    try:
        precise = frozen_copy(model).double()
        one, two = (
            run_alone(precise, [t.double() if t.is_floating_point() else t for t in batch])
            for batch in batches
        )
    except Exception:  # whatever a model raises that cannot run in double precision
        return False
    return one.dtype == torch.float64 and _rows_agree(one, two, ROUNDING_IN_DOUBLE)


def _same(given: Any, answer: Tensor) -> bool:
    if not isinstance(given, Tensor) or (given.shape, given.dtype) != (answer.shape, answer.dtype):
        return False
    if torch.equal(given, answer):
        return True
    limit = 0.0 if answer.device.type == "cpu" else ON_ACCELERATORS * answer.abs().max().item()
    return torch.allclose(given, answer, rtol=0, atol=limit, equal_nan=True)


def _difference(given: Any, answer: Tensor) -> str:
    if not isinstance(given, Tensor) or (given.shape, given.dtype) != (answer.shape, answer.dtype):
        return "another shape or type"
    return f"up to {(given.double() - answer.double()).abs().max():.2g} apart"


def _unsteady(model: nn.Module, sample: Sequence[Tensor]) -> str | None:
    """Reason why a model gives different answers to the same sample, if it does."""
    first, fresh = frozen_copy(model), frozen_copy(model)
    answer = run_alone(first, sample)
    if not _same(run_alone(fresh, sample, seed=1), answer):
        return (
            "The model's answer is random in evaluation mode (dropout that is always on, noise "
            "that is drawn in forward), so the stages cannot reproduce it. Switch it off when "
            "`self.training` is false."
        )
    before = _state(first)
    if not _same(run_alone(first, sample), answer):
        moved = [name for name, value in _state(first).items() if before.get(name) != value]
        what = f" ({', '.join(moved[:4])} changed)" if moved else ""
        return (
            f"The model's answer depends on earlier calls{what}, so frozen stages cannot "
            "reproduce it. Keep that state outside the model, or do not change it in evaluation "
            "mode."
        )
    return None


def _state(model: nn.Module) -> dict[str, object]:
    """Plain attributes, and how often each buffer was changed, by name."""
    found: dict[str, object] = {name: buffer._version for name, buffer in model.named_buffers()}
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, int | float | str | None):
                found[f"{path}.{key}".lstrip(".")] = value
            elif isinstance(value, Tensor):
                found[f"{path}.{key}".lstrip(".")] = (id(value), value._version)
    return found


class _AutocastWatch(TorchFunctionMode):
    """Detects operations that run under autocast."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = (
            self.seen or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        )
        return func(*args, **(kwargs or {}))
