"""Stand-in files for Tiny ImageNet: noise with a colour per class, some of it grey."""

from pathlib import Path

import numpy as np
from PIL import Image

from offramp.data.images.tiny_imagenet import FOLDER
from offramp.data.published import MARK

SIDE = 64
CLASSES = {
    "n02123045": "tabby, tabby cat",
    "n01443537": "goldfish, Carassius auratus",
    "n03444034": "go-kart",
}
"""WordNet ids and names, not in the order of the ids."""


def write(root: Path, per_class: int, seed: int) -> None:
    """Write the folder that the archive unpacks to.

    Args:
        root: Folder that gets this folder and the mark of stand-in files.
        per_class: Number of pictures of each class in each of train and val, and of pictures
            without a class in test. The last one of each class is grey.
        seed: Of the noise.
    """
    rng = np.random.default_rng(seed)
    folder = root / FOLDER
    annotations = []
    for number, name in enumerate(CLASSES):
        images = folder / "train" / name / "images"
        boxes = []
        for place in range(per_class):
            grey = place == per_class - 1
            _save(images / f"{name}_{place}.JPEG", number, rng, grey=grey)
            boxes.append(f"{name}_{place}.JPEG\t0\t0\t62\t62\n")
            validated = f"val_{number + len(CLASSES) * place}.JPEG"
            _save(folder / "val/images" / validated, number, rng, grey=grey)
            annotations.append(f"{validated}\t{name}\t0\t0\t62\t62\n")
        _write(images.parent / f"{name}_boxes.txt", boxes)
    for place in range(per_class):
        _save(folder / "test/images" / f"test_{place}.JPEG", place % len(CLASSES), rng)
    _write(folder / "val/val_annotations.txt", annotations)
    _write(folder / "wnids.txt", [f"{name}\n" for name in CLASSES])
    others = {"n00001740": "entity", **CLASSES}
    _write(folder / "words.txt", [f"{name}\t{words}\n" for name, words in others.items()])
    (root / MARK).touch()


def _save(path: Path, number: int, rng: np.random.Generator, *, grey: bool = False) -> None:
    shade = 40 + number * np.array([70, 20, 45])
    pixels = (shade + rng.integers(0, 60, (SIDE, SIDE, 3))).astype(np.uint8)
    picture = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture.convert("L") if grey else picture).save(path)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(lines), encoding="utf-8")
