"""The built wheel carries the data and the backbone, and they work from there."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000
BACKBONE = "offramp/data/backbone/tf_efficientnet_lite0-fashion_mnist-112px.safetensors"

MEASURE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
import offramp
from offramp.backbones.zoo import build
from offramp.data import FashionMNIST

model, right, seen = build("offramp:demo"), 0, 0
with torch.inference_mode():
    for batch in FashionMNIST(image_size=112).load().test.batches(50):
        guesses = model(*batch.inputs).argmax(1).numpy()
        right += int((guesses == np.asarray(batch.targets)).sum())
        seen += len(guesses)
print(json.dumps({"from": offramp.__file__, "right": right, "seen": seen}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("offramp-*.whl")
    return built


def run(*arguments: str | Path) -> str:
    command: Sequence[str | Path] = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sizes(wheel: Path) -> dict[str, int]:
    with ZipFile(wheel) as archive:
        return {item.filename: item.file_size for item in archive.infolist()}


def test_the_wheel_carries_the_images_the_backbone_and_the_types_mark(wheel: Path) -> None:
    parts = ("train", "validation", "calibration", "test")
    kinds = ("images-idx3", "labels-idx1")
    images = {f"offramp/data/fashion_mnist/{p}-{k}-ubyte.gz" for p in parts for k in kinds}
    lists = {f"offramp/data/{name}/splits.json" for name in ("fashion_mnist", "gtzan")}
    wanted = images | lists | {"offramp/py.typed", BACKBONE}
    assert wanted - sizes(wheel).keys() == set()


def test_the_wheel_keeps_the_licences_of_what_it_ships(wheel: Path) -> None:
    licences = [name for name in sizes(wheel) if ".dist-info/licenses/" in name]
    kept = " ".join(licences)
    assert "licenses/LICENSE" in kept
    assert "fashion_mnist/LICENSE" in kept
    assert "backbone/LICENSE" in kept
    assert "gtzan/LICENSE" in kept


def test_the_shipped_data_stays_small(wheel: Path) -> None:
    data = {name: size for name, size in sizes(wheel).items() if name.startswith("offramp/data/")}
    assert data[BACKBONE] < 10 * MEGABYTE
    assert sum(data.values()) <= 20 * MEGABYTE


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in sizes(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"offramp"}
    assert not [name for name in sizes(wheel) if "__pycache__" in name]


def test_the_shipped_backbone_answers_the_shipped_test_images(wheel: Path, tmp_path: Path) -> None:
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    measured = json.loads(run("-c", MEASURE, tmp_path).splitlines()[-1])
    assert Path(measured["from"]).is_relative_to(tmp_path)
    assert measured["seen"] == 2_000
    assert measured["right"] / measured["seen"] >= 0.92
