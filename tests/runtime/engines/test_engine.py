import threading

import pytest

from offramp.runtime.engines import Stop, Stopped


def test_a_request_calls_what_is_attached_and_stays_set() -> None:
    stop, called = Stop(), []
    with stop.attached(lambda: called.append("cancelled")):
        assert not stop.requested
        stop.request()
        assert called == ["cancelled"]
    assert stop.requested


def test_nothing_is_attached_once_a_stop_was_requested() -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(Stopped), stop.attached(lambda: None):
        pytest.fail("the block ran")


def test_what_has_ended_is_not_cancelled() -> None:
    stop, called = Stop(), []
    with stop.attached(lambda: called.append("cancelled")):
        pass
    stop.request()
    assert called == []


def test_a_block_ends_only_when_a_cancel_in_progress_has_returned() -> None:
    stop, order = Stop(), []
    entered, released = threading.Event(), threading.Event()

    def cancel() -> None:
        entered.set()
        released.wait(5)
        order.append("cancelled")

    asking = threading.Thread(target=stop.request)
    with stop.attached(cancel):
        asking.start()
        entered.wait(5)
        threading.Timer(0.02, released.set).start()
    order.append("ended")
    asking.join()
    assert order == ["cancelled", "ended"]
