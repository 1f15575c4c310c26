import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offramp.errors import BundleError
from offramp.storage.lock import locked

HOLDS = """
import sys
from pathlib import Path
from offramp.storage.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the folder until it is killed or its input ends."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class Killer(logging.Handler):
    """Kills a process as soon as a message is logged."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__()
        self.process, self.said = process, ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said += record.getMessage()
        self.process.kill()


def test_who_holds_the_lock_is_logged_and_its_death_releases_it(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    kills = Killer(holder)
    log = logging.getLogger("offramp.storage.lock")
    log.addHandler(kills)
    try:
        with locked(tmp_path, patience=0.05):
            assert holder.wait() != 0
    finally:
        log.removeHandler(kills)
    assert f"waiting for process {holder.pid} on " in kills.said
    assert str(tmp_path) in kills.said


def test_a_lock_can_be_taken_again_after_it_was_released(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path, patience=0):
            pass
    with pytest.raises(ZeroDivisionError), locked(tmp_path, patience=0):
        raise ZeroDivisionError
    with locked(tmp_path, patience=0):
        pass
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_a_folder_that_cannot_be_written_to_is_refused_immediately(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(BundleError, match="cannot be written to"), locked(tmp_path):
        pass
