"""Stand-in files for CIFAR-10 and CIFAR-100: noise with a colour per class, in binary form."""

from pathlib import Path

import numpy as np

from offramp.data.published import MARK

_LAYOUT = {
    10: (
        "cifar-10-batches-bin",
        (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
        "batches.meta.txt",
    ),
    100: ("cifar-100-binary", ("train.bin", "test.bin"), "fine_label_names.txt"),
}


def write(
    root: Path, per_file: int, seed: int, *, classes: int = 10, num_tests: int | None = None
) -> None:
    """Write every file of the binary archive, unpacked.

    Args:
        root: Folder that gets the archive's folder and the mark of stand-in files.
        per_file: Number of pictures in each file.
        seed: Of the noise.
        classes: 10 or 100.
        num_tests: Number of pictures in the file for testing; None is `per_file`.
    """
    rng = np.random.default_rng(seed)
    folder, files, names = _LAYOUT[classes]
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in files:
        count = per_file if num_tests is None or name != files[-1] else num_tests
        labels = rng.integers(0, classes, (count, 1))
        shades = 40 + labels * np.array([[1, 7, 3]]) * 160 // classes % 160
        pixels = np.repeat(shades, 32 * 32, axis=1) + rng.integers(0, 40, (count, 3072))
        heads = [labels // 5, labels] if classes == 100 else [labels]
        records = np.hstack([*heads, pixels]).astype(np.uint8)
        (root / folder / name).write_bytes(records.tobytes())
    text = "\n".join(f"class{number}" for number in range(classes))
    (root / folder / names).write_text(text, encoding="utf-8")
    (root / MARK).touch()
