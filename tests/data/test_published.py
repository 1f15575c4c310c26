from pathlib import Path

import pytest

from offramp.data.published import MARK, check_sizes, is_stand_in, read_lines
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
