import os
import subprocess
import sys
from pathlib import Path

import pytest

from offramp.errors import BundleError
from offramp.storage.atomic import make_folder, replacing, sha256_of, write_bytes


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_bytes(path, b"old")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix_and_the_folder(tmp_path: Path) -> None:
    with replacing(tmp_path / "plot.svg") as temporary:
        temporary.write_bytes(b"<svg/>")
        assert (temporary.suffix, temporary.parent) == (".svg", tmp_path)
    assert (tmp_path / "plot.svg").read_bytes() == b"<svg/>"


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match=r"file/run cannot be created: .*Choose a path"):
        make_folder(tmp_path / "file" / "run")


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert sha256_of(tmp_path / "empty").startswith("e3b0c44298fc1c14")


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(BundleError, match=r"taken is a folder.*Name a file"):
        write_bytes(tmp_path / "taken", b"content")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="file"):
        write_bytes(tmp_path / "file" / "below", b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def test_the_next_write_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    killed = "from offramp.storage.atomic import *\nimport os, pathlib, sys\n"
    killed += "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
    killed += "    temporary.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    path = tmp_path / "table.json"
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == b"half"
    write_bytes(path, b"whole")
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_leaves_the_temporary_files_of_running_processes_and_of_other_paths(
    tmp_path: Path,
) -> None:
    others = [f".table.{os.getppid()}.tmp.json", ".tables.1.tmp.json", ".table.1.tmp.txt"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    write_bytes(tmp_path / "table.json", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "table.json"])
