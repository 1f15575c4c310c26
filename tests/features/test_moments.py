from functools import reduce

import pytest
import torch
from torch import Tensor

from offramp.features.moments import Moments


def rows_far_from_zero() -> Tensor:
    return torch.randn(37, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1000


def apart(given: Tensor, expected: Tensor) -> float:
    return float(((given - expected) / expected).abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_of_any_size_give_the_moments_of_the_whole(dtype: torch.dtype) -> None:
    rows = rows_far_from_zero()
    chunks = [rows[start:end].to(dtype) for start, end in ((0, 1), (1, 21), (21, 37))]
    moments = reduce(Moments.plus, map(Moments.of, chunks))
    assert moments.count == 37
    assert apart(moments.mean, rows.double().mean(dim=0)) < 1e-6
    assert apart(moments.std, rows.double().std(dim=0, correction=0)) < 1e-6


def test_many_rows_in_single_precision_stay_accurate() -> None:
    rows = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0)) + 100
    moments = Moments.of(rows)
    assert apart(moments.mean, rows.double().mean(dim=0)) < 1e-6
    assert apart(moments.std, rows.double().std(dim=0, correction=0)) < 1e-6


def test_rows_that_are_all_equal_have_no_spread() -> None:
    moments = Moments.of(torch.full((11, 2), 0.1))
    assert moments.std.max() < 1e-8
    torch.testing.assert_close(moments.mean, torch.full((2,), 0.1, dtype=torch.float64))


def test_scaled_moments_are_those_of_scaled_rows() -> None:
    rows, scale = rows_far_from_zero(), torch.tensor([0.5, 1.0, 2.0, 2.0**-90, 2.0**90])
    moments, expected = Moments.of(rows).times(scale), rows.double() * scale
    assert apart(moments.mean, expected.mean(dim=0)) < 1e-6
    assert apart(moments.std, expected.std(dim=0, correction=0)) < 1e-6


def test_the_rows_stay_as_they_were() -> None:
    rows = rows_far_from_zero()
    Moments.of(rows)
    assert torch.equal(rows, rows_far_from_zero())
