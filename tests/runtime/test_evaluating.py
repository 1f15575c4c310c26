import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from offramp.bundle import Bundle, open_bundle
from offramp.errors import BundleError, DataError
from offramp.outputs import ExitOutputs
from offramp.runtime.evaluating import evaluate_bundle
from offramp.runtime.folders import read_splits
from offramp.runtime.runtime import Runtime
from offramp.storage.folder import changing, read_folder
from offramp.storage.manifest import BUNDLE

pytestmark = pytest.mark.filterwarnings("ignore::offramp.doubts.DoubtWarning")

Arrays = tuple[object, object]


def drawn(seed: int, count: int = 12) -> Arrays:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 3, 9, 7)).astype(np.float32), np.arange(count) % 5


@pytest.fixture
def place(folder: Path, tmp_path: Path) -> Path:
    """A copy of the bundle."""
    return Path(shutil.copytree(folder, tmp_path / "bundle"))


def loaded(place: Path, name: str) -> ExitOutputs:
    return ExitOutputs.load(read_folder(place, BUNDLE, [name]).files[name])


def test_answers_are_stored_in_the_bundle_with_times_and_the_rest_stays(place: Path) -> None:
    before = read_folder(place, BUNDLE).manifest["files"]
    with Runtime(place) as runtime:
        found = evaluate_bundle(runtime, {"calibration": drawn(1), "test": drawn(2)})
        wanted = runtime.collect(drawn(2), split="test")
    assert [*found] == ["outputs/calibration.npz", "outputs/test.npz"]
    stored = loaded(place, "outputs/test.npz")
    assert np.array_equal(stored.outputs, wanted.outputs)
    assert stored.source == wanted.source
    assert stored.stage_ms is not None
    after = read_folder(place, BUNDLE).manifest["files"]
    assert before.items() <= after.items()
    assert {*after} - {*before} == {*found}


def test_stages_are_timed_where_the_bundle_has_no_times_of_this_machine(place: Path) -> None:
    stored = read_folder(place, BUNDLE)
    content = {n: v for n, v in stored.manifest.items() if n not in ("files", "format")}
    with changing(place, BUNDLE, {**content, "times": []}, keep=stored.manifest["files"]):
        pass
    with Runtime(place) as runtime:
        assert runtime.collect(drawn(1)).stage_ms is None
        [found] = evaluate_bundle(runtime, {"test": drawn(1)}).values()
    assert found.stage_ms is not None
    assert (found.stage_ms > 0).all()


def test_answers_to_the_other_split_stay(place: Path) -> None:
    for split, seed in (("calibration", 1), ("test", 2)):
        with Runtime(place) as runtime:
            evaluate_bundle(runtime, {split: drawn(seed)})
    assert (loaded(place, "outputs/calibration.npz").source or {})["split"] == "calibration"


def test_test_samples_that_choose_thresholds_are_refused(place: Path) -> None:
    with Runtime(place) as runtime:
        evaluate_bundle(runtime, {"calibration": drawn(1)})
        with pytest.raises(DataError, match=r"calibration and the test samples of .* the same"):
            evaluate_bundle(runtime, {"test": drawn(1)})
    assert "outputs/test.npz" not in read_folder(place, BUNDLE).manifest["files"]


def test_a_bundle_that_was_replaced_meanwhile_gets_no_answers_of_the_old_one(
    place: Path, tmp_path: Path
) -> None:
    with Runtime(place) as runtime:
        with changing(place, BUNDLE) as staged:
            (staged / "stages").mkdir()
            (staged / "stages/0.onnx").write_bytes(b"another network")
        before = read_folder(place, BUNDLE).manifest
        with pytest.raises(BundleError, match=r"another process replaced stages/0\.onnx"):
            evaluate_bundle(runtime, {"test": drawn(1)})
    assert read_folder(place, BUNDLE).manifest == before


def test_a_bundle_in_memory_stores_nothing(place: Path) -> None:
    opened = open_bundle(place)
    loose = Bundle(opened.manifest, (), opened.read)
    with Runtime(loose) as runtime, pytest.raises(BundleError, match="not opened from a folder"):
        evaluate_bundle(runtime, {"test": drawn(1)})


def test_a_damaged_picture_is_named_and_nothing_is_written(place: Path, tmp_path: Path) -> None:
    for number in range(3):
        picture = tmp_path / "photos" / "b" / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5, 5, 3), number, np.uint8)).save(picture)
    picture.write_bytes(picture.read_bytes()[:40])
    before = read_folder(place, BUNDLE).manifest
    with Runtime(place) as runtime:
        data = read_splits(tmp_path / "photos", runtime.facts)
        with pytest.raises(DataError, match=r"sample 2 \(id b/2\.png\): .*2\.png cannot be read"):
            evaluate_bundle(runtime, data)
    assert read_folder(place, BUNDLE).manifest == before


@pytest.mark.slow
def test_pictures_with_sounds_are_answered_with_and_without_their_sounds(
    hearing_folder: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(hearing_folder, tmp_path / "bundle")
    rng = np.random.default_rng(3)
    for number in range(4):
        picture = tmp_path / "films" / "test" / "ab"[number % 2] / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(picture)
        soundfile.write(picture.with_suffix(".wav"), rng.uniform(-1, 1, 400), 8000)
    with Runtime(place) as runtime:
        found = evaluate_bundle(runtime, read_splits(tmp_path / "films", runtime.facts))
        answer = runtime.run(runtime.files_of(str(picture)))
    assert {name: each.names for name, each in found.items()} == {
        "outputs/test.npz": ("V1", "AV1", "V2", "final"),
        "outputs/test-without-1.npz": ("V1", "AV1", "V2"),
    }
    np.testing.assert_allclose(found["outputs/test.npz"].outputs[-1, -1], answer.outputs, atol=1e-5)
    assert (found["outputs/test-without-1.npz"].source or {})["without"] == ["sound"]


def test_a_kill_leaves_the_bundle_as_it_was_or_complete(
    place: Path, moments_of: Callable[[Path, Callable[[], object]], list[Path]]
) -> None:
    with Runtime(place) as runtime:
        taken = moments_of(place, lambda: evaluate_bundle(runtime, {"test": drawn(1)}))
    states = [read_folder(each, BUNDLE).manifest["files"] for each in taken]
    assert {"outputs/test.npz" in files for files in states} == {False, True}
    for each in taken:
        with Runtime(each) as opened:
            opened.run(drawn(1)[0][0])  # type: ignore[index]
