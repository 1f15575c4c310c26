import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from offramp.compute import random_stream, seeded


def draw() -> list[float]:
    values: list[float] = torch.rand(4).tolist()
    return values


def raise_after(drawn: list[float]) -> None:
    raise ZeroDivisionError(drawn)


def test_a_stream_is_the_same_in_every_process() -> None:
    assert random_stream("layer1", "slvit", 0, 17) == 6_145_197_212_965_150_435


def test_streams_differ_in_any_part_order_and_type_of_their_key() -> None:
    parts: tuple[str | int, ...] = ("a", "b", "ab", "1", 1, 2, "")
    keys = [key for size in range(4) for key in itertools.product(parts, repeat=size)]
    seeds = {random_stream(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_same_key_draws_the_same_numbers_regardless_of_earlier_draws() -> None:
    with seeded("work", 3):
        first = draw()
    draw()
    with seeded("work", 3):
        again = draw()
    with seeded("work", 4):
        other = draw()
    assert first == again
    assert first != other


def test_the_callers_generator_continues_as_if_nothing_had_been_drawn() -> None:
    torch.manual_seed(5)
    expected = draw() + draw()
    torch.manual_seed(5)
    got = draw()
    with pytest.raises(ZeroDivisionError), seeded("work"):
        raise_after(draw())
    assert got + draw() == expected


def test_streams_nest() -> None:
    with seeded("outer"):
        expected = [draw(), draw()]
    with seeded("outer"):
        first = draw()
        with seeded("inner"):
            draw()
        assert [first, draw()] == expected


@pytest.mark.gpu
def test_a_gpu_stream_is_repeatable_and_leaves_the_gpus_generator_alone() -> None:
    def draw_there() -> list[float]:
        values: list[float] = torch.rand(4, device="cuda").tolist()
        return values

    torch.cuda.manual_seed(5)
    expected = draw_there() + draw_there()
    torch.cuda.manual_seed(5)
    got = draw_there()
    with seeded("work", device="cuda"):
        first = draw_there()
    with seeded("work", device="cuda"):
        assert draw_there() == first
    assert got + draw_there() == expected


def test_threads_that_draw_from_streams_at_once_do_not_disturb_each_other() -> None:
    def drawn(number: int) -> list[float]:
        with seeded("stream", number):
            return [float(torch.randn(())) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(drawn, range(20)))
    assert together == [drawn(number) for number in range(20)]
