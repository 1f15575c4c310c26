from pathlib import Path

import numpy as np
import pytest

from offramp.data.published import MARK, check_sizes, held_out, is_stand_in, read_lines
from offramp.errors import DataError


def test_many_parts_that_are_not_whole_are_counted(tmp_path: Path) -> None:
    parts = {f"part{number}": 7 for number in range(13)}
    with pytest.raises(DataError, match=r"part10 has 0 instead of 7, and 2 more are not whole\. "):
        check_sizes(tmp_path, {"part3": 7}, parts)
    check_sizes(tmp_path, parts, parts)


def test_the_mark_of_stand_in_files_holds_below_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a" / MARK).touch()
    assert [is_stand_in(tmp_path / name) for name in ("a", "a/b", ".")] == [True, True, False]
    monkeypatch.chdir(tmp_path / "a/b")
    assert is_stand_in(Path())


def test_lines_have_no_blanks_and_no_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("one \r\n\r\n two\tthree\n".encode("utf-8-sig"))
    assert read_lines(tmp_path / "list.txt", "all.zip") == ["one", "two\tthree"]


def test_a_split_that_gets_no_source_is_refused_with_the_number_of_sources() -> None:
    digests, labels = np.array([f"{row:02}" for row in range(40)]), np.zeros(40, np.int64)
    sources = np.repeat(["a", "b", "c", "d"], 10)
    with pytest.raises(DataError, match=r"calibration would be empty: .* 40 .* of 4 sour.* more"):
        held_out({"calibration": 2}, digests, labels, 0, stand_in=False, sources=sources)
    with pytest.raises(DataError, match=r"train would be empty: .* Ask for fewer samples\."):
        held_out({"calibration": 38}, digests, labels, 0, stand_in=False, sources=sources)
    drawn = held_out({"calibration": 9}, digests, labels, 0, stand_in=False, sources=sources)
    assert (drawn == "calibration").sum() == 10
