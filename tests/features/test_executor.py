import pickle
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

from offramp.errors import PlanError
from offramp.features.executor import start_executor

CPU = torch.device("cpu")


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    with start_executor(threads, CPU) as workers:
        assert workers.each(lambda item: item**2, range(17)) == [item**2 for item in range(17)]
        assert list(workers.stream(lambda item: item**2, range(17))) == [i**2 for i in range(17)]


def test_two_workers_work_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=30)
    with start_executor(2, CPU) as workers:
        assert sorted(workers.each(lambda _: meeting.wait(), range(2))) == [0, 1]


def test_a_stream_reads_only_a_few_items_ahead() -> None:
    read = []

    def items() -> Iterator[int]:
        for item in range(100):
            read.append(item)
            yield item

    with start_executor(2, CPU) as workers:
        assert next(workers.stream(lambda item: item, items())) == 0
    assert len(read) <= 5


def test_each_worker_runs_torch_on_one_core_and_the_switches_come_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with start_executor(None, CPU) as workers:
            assert workers.count == 2
            assert workers.each(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_piece_of_work_reaches_the_caller() -> None:
    with start_executor(2, CPU) as workers, pytest.raises(ZeroDivisionError):
        workers.each(lambda item: 1 // item, [1, 0, 2])


def test_no_thread_is_refused() -> None:
    with pytest.raises(PlanError, match="threads is 0"), start_executor(0, CPU):
        pass


@dataclass(frozen=True)
class Share:
    """A unit: 1 / the number at a place of the sequence that the machine holds."""

    place: int

    def run(self, numbers: Sequence[int], /) -> float:
        return 1 / numbers[self.place]


def test_units_give_the_same_results_after_being_sent_elsewhere() -> None:
    units = [Share(place) for place in range(5)]
    sent = pickle.loads(pickle.dumps(units))  # noqa: S301 our own bytes
    with start_executor(2, CPU) as executor:
        assert list(executor.run(sent, [1, 2, 4, 5, 8])) == [1, 0.5, 0.25, 0.2, 0.125]


def test_units_before_one_that_fails_have_given_their_results() -> None:
    with start_executor(2, CPU) as executor:
        results = executor.run(map(Share, range(5)), [1, 2, 4, 0, 8])
        assert [next(results) for _ in range(3)] == [1, 0.5, 0.25]
        with pytest.raises(ZeroDivisionError):
            next(results)
