"""When a run decodes the files of its data: once before training, and not for a finished run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from offramp.data.splits import SPLIT_NAMES
from offramp.errors import DataError, OfframpError
from offramp.run.demo import answers
from offramp.run.names import WORK
from offramp.run.plan import Plan
from offramp.run.steps import evaluate, train

NETWORK = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
"""
COUNT = 4 * 2 * 3
"""Pictures in all: four splits, two classes."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in SPLIT_NAMES:
        for kind in ("ant", "bee"):
            folder = tmp_path / "photos" / name / kind
            folder.mkdir(parents=True)
            for place in range(3):
                pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{place}.png")
    return tmp_path / "photos"


@pytest.fixture
def backbone_file(tmp_path: Path) -> str:
    path = tmp_path / "network.py"
    path.write_text(NETWORK)
    return f"{path}:network"


@pytest.fixture
def plan(photos: Path) -> Plan:
    return Plan.model_validate(
        {
            "backbone": {"name": "python"},
            "data": {"kind": "image_folder", "root": str(photos), "image_size": 9},
            "branches": {"1": [{"kind": "conv", "filters": 2, "hidden": 3}]},
            "train": {"epochs": 1, "batch_size": 3, "seeds": [0]},
            "evaluate": {"rival_sizes": [], "timing_repeats": 0, "bootstrap_draws": 9},
        }
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one whenever Pillow opens a picture."""
    calls: list[Any] = []
    real = Image.open

    def counting(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return real(*args, **options)

    monkeypatch.setattr(Image, "open", counting)
    return calls


def test_all_damaged_files_of_all_splits_are_named_before_training(
    plan: Plan, photos: Path, backbone_file: str, tmp_path: Path
) -> None:
    for name in ("test/bee/2.png", "train/ant/0.png"):
        (photos / name).write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"2 of 24 files [\s\S]*train/ant/0.png[\s\S]*test/bee/2"):
        train(plan, tmp_path / "run", backbone_file=backbone_file)
    assert not (tmp_path / "run" / WORK).exists()


def test_a_mistake_in_the_plan_is_found_before_a_picture_is_decoded(
    plan: Plan, backbone_file: str, tmp_path: Path, opened: list[Any]
) -> None:
    wrong = plan.model_copy(update={"branches": {"nowhere": plan.branches["1"]}})
    with pytest.raises(OfframpError, match="nowhere"):
        train(wrong, tmp_path / "run", backbone_file=backbone_file)
    assert opened == []


def test_the_pictures_shown_are_of_every_class_though_the_folder_is_sorted(
    plan: Plan, backbone_file: str, tmp_path: Path
) -> None:
    result = train(plan, tmp_path / "run", backbone_file=backbone_file)
    assert [picture.truth for picture in answers(result, 2)] == ["ant", "bee"]


def test_a_finished_run_is_read_without_decoding_a_picture(
    plan: Plan, backbone_file: str, tmp_path: Path, opened: list[Any]
) -> None:
    done = train(plan, tmp_path / "run", backbone_file=backbone_file)
    opened.clear()
    again = train(plan, tmp_path / "run", backbone_file=backbone_file)
    assert opened == []
    assert again.data_keys == done.data_keys


@pytest.mark.slow
def test_an_evaluation_decodes_what_it_answers_and_no_more(
    plan: Plan, backbone_file: str, tmp_path: Path, opened: list[Any]
) -> None:
    train(plan, tmp_path / "run", backbone_file=backbone_file)
    opened.clear()
    evaluate(tmp_path / "run", backbone_file=backbone_file)
    answered, pictured = 3 * 6, 6
    assert len(opened) == answered + pictured


def test_a_resumed_run_does_not_check_the_same_files_twice(
    plan: Plan, photos: Path, backbone_file: str, tmp_path: Path
) -> None:
    def stop(what: str, *_: int) -> None:
        seen.append(what)
        if what.startswith("taps"):
            raise KeyboardInterrupt

    for expected in (COUNT + 1, 0, COUNT + 1):
        seen: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            train(plan, tmp_path / "run", backbone_file=backbone_file, progress=stop)
        assert seen.count("checking files") == expected
        if not expected:  # another picture from now on
            Image.new("RGB", (9, 9)).save(photos / "train/ant/1.png")
