import pytest

from offramp.table import Table, scaled_costs, scaled_flops


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    table = Table(["a", "long head"], [["wide cell", "1"], ["b", ""]])
    assert str(table).splitlines() == [
        "a          long head",
        "---------  ---------",
        "wide cell          1",
        "b",
    ]


@pytest.mark.parametrize(
    ("flops", "unit", "texts"),
    [
        ([1, 999], "FLOPs", ["1", "999"]),
        ([500_000, 12_345_678], "MFLOPs", ["0.50", "12.35"]),
        ([5e7, 2e8], "MFLOPs", ["50.0", "200.0"]),
        ([2.5e9], "GFLOPs", ["2.50"]),
    ],
)
def test_the_largest_cost_sets_the_unit(flops: list[float], unit: str, texts: list[str]) -> None:
    assert scaled_flops(flops) == (unit, [texts])


def test_all_columns_share_the_unit() -> None:
    assert scaled_flops([9e8], [1.1e9]) == ("GFLOPs", [["0.90"], ["1.10"]])


def test_text_has_the_title_and_leaves_out_what_only_a_page_shows() -> None:
    table = Table(["a", "b", "c"], [["1", "2", "3"]], "Title", left=2, page_only=("b",))
    assert str(table).splitlines() == ["Title", "a  c", "-  -", "1  3"]


def test_milliseconds_are_not_scaled() -> None:
    assert scaled_costs("ms", [1.234, 1e7]) == ("ms", ["1.23", "10000000.00"])
    assert scaled_costs("flops", [5e7]) == ("MFLOPs", ["50.00"])


def test_a_column_without_texts_is_left_out_of_a_table_of_columns() -> None:
    table = Table.of(("exit", ["a", "b"]), ("ms", []), ("FLOPs", ["7", "11"]), title="Exits")
    assert table.head == ["exit", "FLOPs"]
    assert table.rows == [("a", "7"), ("b", "11")]
    assert str(table).startswith("Exits\nexit  FLOPs\n")
