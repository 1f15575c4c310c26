import torch

from offramp.features.moments import Moments


def test_chunks_of_any_size_give_the_moments_of_the_whole() -> None:
    rows = torch.randn(37, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1000
    moments = Moments(5)
    for start, end in ((0, 1), (1, 21), (21, 37)):
        moments.add(rows[start:end])
    torch.testing.assert_close(moments.mean, rows.double().mean(dim=0))
    torch.testing.assert_close(moments.std, rows.double().std(dim=0, correction=0))
