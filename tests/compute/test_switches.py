import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from offramp.compute import torch_switches
from offramp.errors import PlanError

READ: dict[str, Callable[[], Any]] = {
    "threads": torch.get_num_threads,
    "deterministic": torch.are_deterministic_algorithms_enabled,
    "warn_only": torch.is_deterministic_algorithms_warn_only_enabled,
    "fill": lambda: torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    "precision": torch.get_float32_matmul_precision,
    "fastpath": torch.backends.mha.get_fastpath_enabled,
    "cudnn deterministic": lambda: torch.backends.cudnn.deterministic,
    "cudnn benchmark": lambda: torch.backends.cudnn.benchmark,
    "cudnn tf32": lambda: torch.backends.cudnn.allow_tf32,
    "cublas": lambda: os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
}


def state() -> dict[str, Any]:
    return {name: read() for name, read in READ.items()}


def test_every_switch_is_turned_and_turned_back() -> None:
    before = state()
    with torch_switches(threads=1 + before["threads"], deterministic=True, mha_fastpath=False):
        inside = state()
    assert inside == {
        "threads": 1 + before["threads"],
        "deterministic": True,
        "warn_only": False,
        "fill": False,
        "precision": "highest",
        "fastpath": False,
        "cudnn deterministic": True,
        "cudnn benchmark": False,
        "cudnn tf32": False,
        "cublas": before["cublas"] or ":4096:8",
    }
    assert state() == before


def test_switches_are_turned_back_after_an_error() -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), torch_switches(deterministic=True, threads=3):
        1 / 0  # noqa: B018
    assert state() == before


def test_switches_that_are_not_given_stay_and_nesting_unwinds_in_order() -> None:
    before = state()
    with torch_switches():
        assert state() == before
    with torch_switches(matmul_precision="medium"):
        with torch_switches(matmul_precision="high", threads=2):
            assert torch.get_float32_matmul_precision() == "high"
        assert state() == {**before, "precision": "medium"}
    assert state() == before


def test_no_threads_are_refused() -> None:
    with pytest.raises(PlanError, match="threads is 0"), torch_switches(threads=0):
        pass


@pytest.mark.gpu
def test_a_gpu_computes_the_same_twice_and_in_full_float32() -> None:
    layer = torch.nn.Conv2d(64, 64, 3).cuda()
    images = torch.randn(8, 64, 30, 30, device="cuda")
    flat = images.flatten(1)

    def once() -> tuple[torch.Tensor, torch.Tensor]:
        layer.zero_grad()
        layer(images).square().sum().backward()
        assert layer.weight.grad is not None
        return layer.weight.grad.clone(), flat @ flat.T

    with torch_switches(deterministic=True):
        first, second = once(), once()
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    exact = (flat.double() @ flat.double().T).float()
    torch.testing.assert_close(first[1], exact, rtol=1e-4, atol=1e-2)
