import pytest

from offramp.errors import PlanError
from offramp.runtime.engines import open_engine
from offramp.runtime.engines.cores import usable_cores


def test_an_unknown_engine_is_told_with_those_that_exist() -> None:
    with pytest.raises(PlanError, match=r"engine=.tensorrt. is not one of: onnxruntime, .*"):
        open_engine("tensorrt")


def test_an_unknown_precision_is_told_with_those_that_exist() -> None:
    with pytest.raises(PlanError, match="precision='fp8' is not one of: fp32, bf16"):
        open_engine("onnxruntime", "fp8")


def test_no_threads_are_refused() -> None:
    with pytest.raises(PlanError, match="threads=0 is not a number of threads"):
        open_engine("onnxruntime", threads=0)


def test_one_thread_per_core_is_the_default() -> None:
    assert open_engine("onnxruntime").threads == usable_cores()
