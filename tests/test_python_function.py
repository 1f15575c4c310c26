"""How often a user's Python file is executed, and that nobody notices."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from offramp.python_function import call_function, executed_once

FILE = """
import random
from pathlib import Path

import numpy as np
import torch

log = Path(__file__).with_suffix(".log")
log.write_text((log.read_text() if log.exists() else "") + "executed\\n")
KEPT = {"number": 1}
START

def one():
    return KEPT

def other():
    return KEPT["number"], random.random(), np.random.random(), torch.rand(1).item()
"""


def times(folder: Path) -> int:
    return (folder / "mine.log").read_text().count("executed")


def write(folder: Path, start: str = "", number: int = 1) -> str:
    text = FILE.replace("START", start).replace('"number": 1', f'"number": {number}')
    (folder / "mine.py").write_text(text)
    return str(folder / "mine.py")


def call(file: str, function: str) -> object:
    return call_function(f"{file}:{function}", "anything")


def test_two_functions_of_a_file_need_one_execution(tmp_path: Path) -> None:
    file = write(tmp_path)
    (tmp_path / "link.py").symlink_to(file)
    with executed_once():
        call(file, "one")
        call(str(tmp_path / "link.py"), "other")
    assert times(tmp_path) == 1


def test_outside_of_a_block_each_call_executes_the_file(tmp_path: Path) -> None:
    file = write(tmp_path)
    for block in (1, 2):
        with executed_once():
            call(file, "one")
            call(file, "other")
        assert times(tmp_path) == block
    call(file, "one")
    call(file, "other")
    assert times(tmp_path) == 4


def test_a_file_that_changed_is_executed_again(tmp_path: Path) -> None:
    file = write(tmp_path)
    stat = Path(file).stat()
    with executed_once():
        call(file, "other")
        write(tmp_path, number=7)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # and of the same size
        assert call(file, "one") == {"number": 7}
    assert times(tmp_path) == 2


def test_a_function_that_is_called_again_gives_new_objects(tmp_path: Path) -> None:
    file = write(tmp_path)
    with executed_once():
        first = call(file, "one")
        call(file, "other")
        second = call(file, "one")
    assert first == second
    assert first is not second
    assert times(tmp_path) == 2


@pytest.mark.parametrize(
    "start",
    ["random.seed(3)", "np.random.seed(3)", "torch.manual_seed(3)", "torch.rand(1)"],
)
def test_what_a_function_draws_does_not_depend_on_calls_of_others(
    tmp_path: Path, start: str
) -> None:
    file = write(tmp_path, start)

    def seed() -> None:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        __import__("random").seed(0)

    seed()
    alone = call(file, "other")
    with executed_once():
        call(file, "one")
        torch.rand(5)
        seed()
        assert call(file, "other") == alone


def test_no_bytecode_is_left_beside_the_file(tmp_path: Path) -> None:
    call(write(tmp_path), "one")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "mine.log"}
