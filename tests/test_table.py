import pytest

from offramp.table import scaled_flops, text_table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    table = text_table(["a", "long head"], [["wide cell", "1"], ["b", ""]])
    assert table.splitlines() == [
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
