from pathlib import Path

import pytest

from offramp.data.rows import read_rows
from offramp.errors import DataError

TEXT = 'name,label\na.png,ant\n"b,c.png",  bee \n'


def _file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.replace("\n", "\r\n"),
        "\n" + TEXT + "\n,\n",
        'name;label\na.png;ant\n"b,c.png";bee\n',
        "name\tlabel\na.png\tant\nb,c.png\tbee",
    ],
)
def test_every_usual_way_to_write_a_table_is_read(tmp_path: Path, content: str | bytes) -> None:
    rows = read_rows(_file(tmp_path, content))
    assert rows.header == ["name", "label"]
    assert rows.column("name") == ["a.png", "b,c.png"]
    assert rows.column("label") == ["ant", "bee"]


def test_a_row_keeps_the_line_it_begins_on(tmp_path: Path) -> None:
    rows = read_rows(_file(tmp_path, 'name,label\n"a\nb",ant\n\nc,bee\n'))
    assert rows.lines == [2, 5]


def test_rows_of_another_length_are_refused_with_their_lines(tmp_path: Path) -> None:
    rows = read_rows(_file(tmp_path, "name,label\na\nb,bee\nc,cow,3\n"))
    with pytest.raises(DataError) as caught:
        rows.refuse([(3, "no file"), (3, "no label")], "Look.")
    assert str(caught.value).splitlines()[1:] == [
        "  line 2: 1 cell, but the first line names 2 columns",
        "  line 3: no file; no label",
        "  line 4: 3 cells, but the first line names 2 columns",
        "Look.",
    ]
    assert "3 of 3 rows" in str(caught.value)


def test_the_first_five_rows_at_fault_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    rows = read_rows(_file(tmp_path, "name\n" + "a\n" * 9))
    with pytest.raises(DataError, match=r"8 of 9 rows .*[\s\S]*line 6: bad\n  and 3 more\nLook"):
        rows.refuse([(line, "bad") for line in range(2, 10)], "Look.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ("name,label\n", "has no rows"),
        (b"name,label\n\xff,ant\n", "not UTF-8 text"),
        ('name,label\na,ant\n"b,bee\nc,cow\n', r"from line 3 on: unexpected end .* quotes"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(_file(tmp_path, content))


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv cannot be read: No such file"):
        read_rows(tmp_path / "absent.csv")
