"""Make the Fashion-MNIST subset that the package ships.

    apt-get install dataset-fashion-mnist
    python tools/make_data.py --source /usr/share/datasets/fashion-mnist

Held-out images (validation, calibration, and a spare rest) and test images are drawn only from
images whose bytes occur once in the whole of Fashion-MNIST, so no split can share an image with
another. The draws are plain random ones, not balanced by class: the guarantees of later
calibration want calibration and test images that are drawn alike.
"""

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np

from offramp.data.images.idx import idx_bytes, read_idx

CLASS_NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
               "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]  # fmt: skip
HELD_OUT, VALIDATION, CALIBRATION, TRAIN, TEST, BACKBONE_VALIDATION = (
    10_000, 2_000, 5_000, 8_000, 2_000, 2_000)  # fmt: skip


def main() -> None:
    """Write the four splits and `splits.json`, which says where each image comes from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=Path("src/offramp/data/fashion_mnist"))
    parser.add_argument("--seed", type=int, default=2022)
    args = parser.parse_args()

    files = {part: (read_idx(args.source / f"{part}-images-idx3-ubyte.gz"),
                    read_idx(args.source / f"{part}-labels-idx1-ubyte.gz"))
             for part in ("train", "t10k")}  # fmt: skip
    digests = {part: [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
               for part, (images, _) in files.items()}  # fmt: skip
    seen = Counter(digests["train"] + digests["t10k"])
    single = {part: np.array([seen[digest] == 1 for digest in digests[part]]) for part in files}

    rng = np.random.default_rng(args.seed)
    held_out = rng.permutation(np.flatnonzero(single["train"]))[:HELD_OUT]
    backbone = rng.permutation(np.setdiff1d(np.arange(len(digests["train"])), held_out))
    test = rng.permutation(np.flatnonzero(single["t10k"]))[:TEST]
    splits = {
        "train": ("train", backbone[:TRAIN]),
        "validation": ("train", held_out[:VALIDATION]),
        "calibration": ("train", held_out[VALIDATION : VALIDATION + CALIBRATION]),
        "test": ("t10k", test),
    }
    args.to.mkdir(parents=True, exist_ok=True)
    for split, (part, indices) in splits.items():
        images, labels = files[part]
        (args.to / f"{split}-images-idx3-ubyte.gz").write_bytes(idx_bytes(images[indices]))
        (args.to / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(labels[indices]))
    record = {
        "source": "Fashion-MNIST (Zalando Research, MIT licence), Debian dataset-fashion-mnist",
        "seed": args.seed,
        "class_names": CLASS_NAMES,
        "duplicates": {part: int((~single[part]).sum()) for part in files},
        "official_sha256": {
            part: hashlib.sha256("".join(digests[part]).encode()).hexdigest() for part in files
        },
        "indices": {
            **{split: indices.tolist() for split, (_, indices) in splits.items()},
            "held_out": held_out.tolist(),
            "backbone_validation": np.sort(backbone[-BACKBONE_VALIDATION:]).tolist(),
        },
    }
    (args.to / "splits.json").write_text(
        json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    for path in sorted(args.to.iterdir()):
        print(f"{path.stat().st_size:>10,} {path.name}")


if __name__ == "__main__":
    main()
