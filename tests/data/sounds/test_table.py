"""Sounds in a CSV file."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from offramp.data import DataSpec, SoundFolder, SoundTable, Splits
from offramp.data.location import located
from offramp.errors import DataError, KindError, PlanError

CHAIN = {"rate": 8000, "num_samples": 400, "channels": [{"window": 64, "step": 32, "fft": 64}]}


WriteTone = Callable[..., None]


@pytest.fixture
def table(tmp_path: Path, write_tone: WriteTone) -> Path:
    """A CSV file on 7 recorders with 4 sounds each: 2 of owls and 2 of wrens."""
    rows = []
    for recorder in range(7):
        for number in range(4):
            name = f"r{recorder}_{number}.wav"
            write_tone(tmp_path / "flat" / name, 300 + 40 * recorder + 500 * number, seconds=0.06)
            kind = "owl" if number < 2 else "wren"
            split = "train" if recorder < 4 else "val"
            rows.append([name, kind, f"{number / 4}", split, f"rec{recorder}"])
    with (tmp_path / "flat/birds.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "bird", "height", "split", "recorder"], *rows])
    return tmp_path / "flat/birds.csv"


def loaded(file: Path, **settings: Any) -> Splits:
    given = {"kind": "sound_csv", "file": file, "chain": CHAIN, "label": "bird", **settings}
    return TypeAdapter[DataSpec](DataSpec).validate_python(given).load()


def test_a_table_is_divided_as_a_folder_of_the_same_sounds(table: Path, tmp_path: Path) -> None:
    for row in csv.DictReader(table.read_text().splitlines()):
        place = tmp_path / "folders" / row["split"] / row["bird"] / row["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((table.parent / row["path"]).read_bytes())
    theirs = SoundFolder(root=tmp_path / "folders", chain=CHAIN).load()
    ours = loaded(table)
    assert (ours.inputs, ours.target_names) == (theirs.inputs, theirs.target_names)
    for name, samples in ours.named().items():
        other = theirs.named()[name]
        assert {*samples.digests} == {*other.digests}
        twin = other.digests.tolist().index(samples.digests[0])
        assert np.array_equal(samples[0][0].numpy(), other[twin][0].numpy())


def test_recorders_are_kept_together(table: Path) -> None:
    splits = loaded(table, split={}, source="recorder", group="recorder")
    parts = splits.named().values()
    recorders = [{*part.clusters.tolist()} for part in parts if part.clusters is not None]
    assert sum(map(len, recorders)) == len(set.union(*recorders)) == 7


def test_values_are_estimated_from_sounds(table: Path) -> None:
    splits = loaded(table, label=None, value="height")
    assert (splits.task, splits.target_names) == ("regression", ("height",))
    assert {*splits.train.targets.tolist()} == {0.0, 0.25, 0.5, 0.75}


def test_damaged_sounds_are_named_or_skipped(table: Path) -> None:
    (table.parent / "r0_1.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"1 of 28 files .*\n  r0_1.wav: .* not a sound"):
        loaded(table)
    splits = loaded(table, on_corrupt="skip")
    assert len(splits.train) == 15
    assert "r0_1.wav" in splits.skipped[0]


def test_the_other_settings_are_those_of_a_table(table: Path) -> None:
    with pytest.raises(DataError, match="'wren' is not in `classes`"):
        loaded(table, classes=["owl", "robin"])
    splits = loaded(table, classes=["wren", "owl"], limit=6)
    assert splits.target_names == ("wren", "owl")
    assert len(splits.train) == 6


def test_a_table_that_has_moved_is_found(table: Path) -> None:
    spec = SoundTable(file=Path("/gone/birds.csv"), chain=CHAIN, label="bird")
    moved = located(spec, table.parent)
    assert isinstance(moved, SoundTable)
    assert len(moved.load().train) == 16


@pytest.mark.parametrize(
    "settings", [{}, {"sound": CHAIN, "sound_path": "path"}, {"on_corrupt": "skip"}]
)
def test_sounds_in_a_table_of_pictures_are_refused_with_the_right_kind(
    table: Path, settings: dict[str, Any]
) -> None:
    given = {"kind": "csv", "file": table, "label": "bird", **settings}
    with pytest.raises(KindError) as caught:
        TypeAdapter[DataSpec](DataSpec).validate_python(given).load()
    assert str(caught.value) == (
        f"{table} lists sound files, such as r0_0.wav, and data of kind 'csv' reads images. Use "
        "`kind: sound_csv`."
    )


def test_pictures_in_a_table_of_sounds_are_refused_with_the_right_kind(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (5, 4)).save(tmp_path / f"{number}.PNG")
    table = tmp_path / "photos.csv"
    table.write_text("path,bird\n0.PNG,owl\n1.PNG,owl\n2.PNG,wren\n")
    with pytest.raises(KindError, match=r"lists image files, such as 0.PNG, .*Use `kind: csv`\."):
        loaded(table, split={})


def test_a_table_of_sounds_needs_a_chain(table: Path) -> None:
    with pytest.raises(PlanError, match="chain: is required"):
        SoundTable(file=table)  # type: ignore[call-arg]
