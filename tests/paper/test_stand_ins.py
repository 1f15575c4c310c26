"""Stand-in files: written again they are the same, and readers other than ours agree on them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from stand_ins import cifar, tiny_imagenet

from offramp.data import Cifar, Disco

soundfile = pytest.importorskip("soundfile")
from stand_ins import disco, gtzan, speech_commands  # noqa: E402 they need soundfile

WRITERS: dict[str, Callable[[Path], None]] = {
    "cifar10": lambda root: cifar.write(root, 4, 0),
    "cifar100": lambda root: cifar.write(root, 4, 0, classes=100),
    "tiny_imagenet": lambda root: tiny_imagenet.write(root, 2, 0),
    "speech_commands": lambda root: speech_commands.write(root, 1, 0),
    "gtzan": lambda root: gtzan.write(root, 1, 0, samples=395, rate=800),
    "disco": lambda root: disco.write(root, 2, 0, size=(24, 40)),
}


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", WRITERS)
def test_files_that_are_written_on_another_day_are_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path)
    first = digests(tmp_path)
    monkeypatch.setattr("time.asctime", lambda *_: "Thu Jan  1 00:00:00 1970")  # scipy's date
    WRITERS[name](tmp_path)
    assert len(first) > 3
    assert digests(tmp_path) == first


def test_the_maps_of_crowds_are_read_by_scipy_and_by_us(tmp_path: Path) -> None:
    disco.write(tmp_path, 3, 0, size=(24, 40))
    name = "test_0002"
    path = tmp_path / f"density/test/{name}.mat"
    found = scipy.io.loadmat(path)["map"]
    assert found.shape == (24, 40)
    test = Disco(root=tmp_path, image_size=(24, 40)).load().test
    assert test.ids is not None
    row = [str(each).rpartition("/")[2].partition(".")[0] for each in test.ids].index(name)
    assert test.targets[row] == pytest.approx(found.sum(), rel=1e-5)


def records(path: Path, head: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Labels (N,) and pixels (N, 32, 32, 3) of a binary file, by the published description."""
    size = head + 3072
    content = path.read_bytes()
    assert len(content) % size == 0
    rows = [content[start : start + size] for start in range(0, len(content), size)]
    planes = [np.frombuffer(row[head:], np.uint8).reshape(3, 32, 32) for row in rows]
    return np.array([row[head - 1] for row in rows]), np.stack(planes).transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("classes", "file", "head"),
    [(10, "cifar-10-batches-bin/test_batch.bin", 1), (100, "cifar-100-binary/test.bin", 2)],
)
def test_pictures_of_cifar_are_those_that_its_description_says(
    tmp_path: Path, classes: int, file: str, head: int
) -> None:
    cifar.write(tmp_path, 7, 3, classes=classes)
    labels, pixels = records(tmp_path / file, head)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    kind = f"cifar{classes}"
    data = Cifar.model_validate(
        {"kind": kind, "root": tmp_path, "image_size": 32, "mean": mean, "std": std}
    )
    splits = data.load()
    assert splits.stand_in
    np.testing.assert_array_equal(splits.test.targets, labels)
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    [found] = splits.test.read(range(7)).inputs
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    if classes == 100:
        coarse = np.frombuffer((tmp_path / file).read_bytes(), np.uint8)[::3074]
        np.testing.assert_array_equal(coarse, labels // 5)
    files = [*(tmp_path / file).parent.glob("*.bin")]
    counts = [len(records(path, head)[0]) for path in files]
    assert counts == [7] * (6 if classes == 10 else 2)
    assert len(splits.train) + len(splits.validation) == 7 * (len(files) - 1)
