import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.policy.decision import reached
from offramp.simulation.queue import fifo, fifo_by_deadline

QUEUES = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.0, 8.0))
EXIT_MS = np.array([2.0, 3.5, 7.25])


def drawn(seed: int, requests: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(gap * random.standard_exponential(requests))
    return arrivals, random.integers(0, 3, requests)


def in_turn(arrivals: np.ndarray, exits: np.ndarray) -> list[tuple[float, float]]:
    """When each request starts and ends, by the plainest loop there is."""
    free, spans = 0.0, []
    for arrival, exit in zip(arrivals, exits, strict=True):
        start = max(arrival, free)
        free = start + EXIT_MS[exit]
        spans.append((start, free))
    return spans


def test_a_queue_matches_a_hand_calculation() -> None:
    served = fifo(np.array([0.0, 1.0, 20.0]), np.array([2, 0, 1]), EXIT_MS)
    np.testing.assert_allclose(served.starts_ms, [0.0, 7.25, 20.0])
    np.testing.assert_allclose(served.ends_ms, [7.25, 9.25, 23.5])


@given(QUEUES)
@settings(max_examples=60, deadline=None)
def test_the_cumulative_maximum_equals_the_loop(queue: tuple[int, int, float]) -> None:
    arrivals, exits = drawn(*queue)
    served = fifo(arrivals, exits, EXIT_MS)
    starts, ends = np.array(in_turn(arrivals, exits)).T
    np.testing.assert_allclose(served.starts_ms, starts, atol=1e-9)
    np.testing.assert_allclose(served.ends_ms, ends, atol=1e-9)


@given(QUEUES, st.floats(0.0, 30.0))
@settings(max_examples=60, deadline=None)
def test_with_deadlines_each_request_is_served_as_by_deadline_decides(
    queue: tuple[int, int, float], allowed: float
) -> None:
    arrivals, leaves = drawn(*queue)
    due = arrivals + allowed
    served = fifo_by_deadline(arrivals, leaves, EXIT_MS, due)
    in_time = reached(EXIT_MS, due - served.starts_ms)
    np.testing.assert_array_equal(served.exits, np.minimum(leaves, in_time))
    np.testing.assert_array_less(served.ends_ms[served.exits >= 0], due[served.exits >= 0] + 1e-9)
    ends = np.concatenate([[-np.inf], served.ends_ms[:-1]])
    np.testing.assert_array_equal(served.starts_ms, np.maximum(arrivals, ends))
    work = np.append(EXIT_MS, 0.0)[served.exits]
    np.testing.assert_array_equal(served.ends_ms, served.starts_ms + work)


@given(QUEUES)
@settings(max_examples=30, deadline=None)
def test_a_distant_deadline_changes_nothing(queue: tuple[int, int, float]) -> None:
    arrivals, leaves = drawn(*queue)
    patient = fifo_by_deadline(arrivals, leaves, EXIT_MS, arrivals + 1e9)
    np.testing.assert_array_equal(patient.exits, leaves)
    np.testing.assert_allclose(patient.ends_ms, fifo(arrivals, leaves, EXIT_MS).ends_ms, atol=1e-9)


@given(QUEUES)
@settings(max_examples=30, deadline=None)
def test_requests_finish_in_order_of_arrival(queue: tuple[int, int, float]) -> None:
    arrivals, leaves = drawn(*queue)
    assert (np.diff(fifo(arrivals, leaves, EXIT_MS).ends_ms) > 0).all()
    impatient = fifo_by_deadline(arrivals, leaves, EXIT_MS, arrivals + 9.0)
    assert (np.diff(impatient.ends_ms) >= 0).all()
