"""The only place that sets torch's global switches, and restores them."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch

from offramp.arguments import described
from offramp.errors import PlanError

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_FILL = "fill_uninitialized_memory"

MatmulPrecision = Literal["highest", "high", "medium"]
MOST_THREADS = 1024


@contextmanager
def torch_switches(
    *,
    threads: int | None = None,
    deterministic: bool = False,
    matmul_precision: MatmulPrecision | None = None,
    mha_fastpath: bool | None = None,
) -> Iterator[None]:
    """Set some of torch's global switches, and restore all of them afterwards, also on an error.

    Args:
        threads: Threads within one operator on the CPU.
        deterministic: Refuse operators whose result may differ between two runs, choose
            cuDNN's algorithms by rule instead of by trial, and compute in full float32.
        matmul_precision: Of float32 matrix products; `highest` rules out TF32.
        mha_fastpath: Let torch's own attention layers run as one operator in evaluation mode.

    Raises:
        PlanError: `threads` is not a whole number from 1 to 1,024.
    """
    if threads is not None:
        check_threads(threads)
    with ExitStack() as undo:
        _keep(undo)
        if threads is not None:
            torch.set_num_threads(threads)
        if matmul_precision is not None:
            torch.set_float32_matmul_precision(matmul_precision)
        if mha_fastpath is not None:
            torch.backends.mha.set_fastpath_enabled(mha_fastpath)
        if deterministic:
            _be_deterministic()
        yield


def _be_deterministic() -> None:
    os.environ.setdefault(_CUBLAS, ":4096:8")  # cuBLAS refuses to be deterministic without it
    torch.use_deterministic_algorithms(True)
    setattr(torch.utils.deterministic, _FILL, False)  # costs time, and unset memory is not read
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False


def _keep(undo: ExitStack) -> None:
    """Register the current value of every switch for restoring."""
    undo.callback(torch.set_num_threads, torch.get_num_threads())
    undo.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    undo.callback(
        torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()
    )
    undo.callback(
        torch.use_deterministic_algorithms,
        torch.are_deterministic_algorithms_enabled(),
        warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn
    for name in ("deterministic", "benchmark", "allow_tf32"):
        undo.callback(setattr, cudnn, name, getattr(cudnn, name))
    memory = torch.utils.deterministic
    undo.callback(setattr, memory, _FILL, getattr(memory, _FILL))
    undo.callback(_set_environment, _CUBLAS, os.environ.get(_CUBLAS))


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def check_threads(threads: object) -> None:
    """Refuse what cannot be a number of threads.

    Raises:
        PlanError: It is not a whole number from 1 to 1,024.
    """
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise PlanError(
            f"threads is {described(threads)}, but must be a whole number from 1 to "
            f"{MOST_THREADS:,}. Give the number of cores to use, or leave it out."
        )
