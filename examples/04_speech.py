"""Exits on spoken commands: twelve classes, said by the voices of espeak-ng.

python examples/04_speech.py      (needs espeak-ng, and pip install 'offramp[train,audio]')

The words are written in the layout of Speech Commands v0.02 and read by its reader. The voices are
synthetic, so accuracies say nothing about people; but they are many, every clip has noise and a
shift of its own, and no voice of the test set was heard in training.
"""

import io
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import nn

import offramp as orp
from offramp.data import Samples
from offramp.data.published import MARK
from offramp.data.sounds import SpeechCommands
from offramp.data.sounds.speech_commands import MAIN, NOISE, TEST, VALIDATION_NOISE, WORDS
from offramp.errors import NoPolicyError
from offramp.preprocess.spectrogram import SPEECH_COMMANDS

RATE = 16_000
OTHERS = ("bed", "bird", "cat", "dog", "happy", "house", "tree", "wow")  # count as unknown
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-029", "en-gb-x-rp")
TIMBRES = (
    *(f"m{number}" for number in range(1, 9)),
    *(f"f{number}" for number in range(1, 6)),
    *("adam", "Alex", "Andy", "anika", "Annie", "belinda", "benjamin", "boris", "caleb"),
    *("david", "ed", "edward", "Jacky", "john", "Lee", "linda", "marco", "max", "michael"),
    *("mike", "pablo", "paul", "rob", "robert", "shelby", "steph", "travis", "victor"),
)
VOICES = [f"{accent}+{timbre}" for timbre in TIMBRES for accent in ACCENTS]
# The paper's transform with the logarithm, as one channel of half the size, for a small network.
CHAIN = SPEECH_COMMANDS.model_copy(
    update={
        "channels": tuple(
            each.model_copy(update={"log": True}) for each in SPEECH_COMMANDS.channels
        ),
        "repeat": 1,
        "height": 112,
        "width": 112,
    }
)


def spoken(word: str, voice: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """One second with a word in it, somewhere, said by a voice in some noise."""
    command = ["espeak-ng", "-v", voice, "-s", str(rng.integers(130, 210))]
    command += ["-p", str(rng.integers(30, 70)), "--stdout", word]
    wav = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603
    sound, own_rate = soundfile.read(io.BytesIO(wav))
    sound = soxr.resample(sound, own_rate, RATE)[:RATE]
    clip = rng.normal(scale=rng.uniform(0.001, 0.02), size=RATE)
    start = rng.integers(0, RATE - len(sound) + 1)
    clip[start : start + len(sound)] += rng.uniform(0.3, 1) * sound
    return np.clip(clip, -1, 1)


def write(root: Path, seed: int) -> None:
    """The archives' folders: a list for validation, and tests in a folder of their own."""
    rng = np.random.default_rng(seed)
    voices = [VOICES[place] for place in rng.permutation(len(VOICES))]
    parts = {"train": voices[60:], "validation": voices[:20], "test": voices[20:60]}
    listed = []
    for split, number in itertools.chain(
        *([(s, n) for n in range(len(v))] for s, v in parts.items())
    ):
        for word in (*WORDS, *rng.choice(OTHERS, 2, replace=False)):
            speaker = f"{split[:2].encode().hex()}{number:04x}"
            name = f"{word}/{speaker}_nohash_0.wav"
            if split == "test" and word in OTHERS:
                name = f"_unknown_/{speaker}_nohash_{OTHERS.index(word)}.wav"
            save(
                root / (TEST if split == "test" else MAIN) / name,
                spoken(word, parts[split][number], rng),
            )
            listed += [name] * (split == "validation")
    (root / MAIN / "validation_list.txt").write_text("\n".join(listed), encoding="utf-8")
    (root / MAIN / "testing_list.txt").write_text("", encoding="utf-8")
    for name, seconds in (("white_noise.wav", 40), (VALIDATION_NOISE, 5)):
        save(root / MAIN / NOISE / name, noise(seconds, rng))
    for number in range(10):
        save(root / TEST / "_silence_" / f"{number}.wav", noise(1, rng))
    (root / MARK).touch()  # not the real data set


def noise(seconds: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise that grows louder and quieter."""
    loudness = 0.01 + 0.01 * np.sin(np.arange(seconds * RATE) / RATE)
    return loudness * rng.normal(size=seconds * RATE)


def save(path: Path, sound: NDArray[np.float64]) -> None:
    """Write a sound file and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, RATE)


def network() -> nn.Sequential:
    """A small CNN for spectrograms 1 x 112 x 112."""

    def block(inputs: int, outputs: int) -> nn.Sequential:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))

    torch.manual_seed(0)
    blocks = [block(*pair) for pair in itertools.pairwise((1, 16, 32, 64, 64))]
    top = nn.Sequential(nn.AvgPool2d((2, 1)), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 21, 12))
    return nn.Sequential(*blocks, top)


def batches(samples: Samples, size: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled, without the last short batch."""
    order = np.random.default_rng(seed).permutation(len(samples))
    for first in range(0, len(order) - size + 1, size):
        batch = samples.read(order[first : first + size])
        yield batch.inputs[0], batch.targets


def trained(samples: Samples, epochs: int = 5) -> nn.Module:
    """The network, trained in plain torch."""
    model = network().train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(epochs):
        right = total = 0
        for inputs, labels in batches(samples, 32, epoch):
            answers = model(inputs)
            loss = nn.functional.cross_entropy(answers, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            right, total = right + int((answers.argmax(1) == labels).sum()), total + len(labels)
        print(f"network, epoch {epoch + 1}: {right / total:.1%} right in training")
    return model.eval()


def main() -> None:
    """Write, train, cut, train branches, calibrate, and test on voices that were not heard."""
    if shutil.which("espeak-ng") is None:
        sys.exit("This example needs espeak-ng: apt install espeak-ng")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), seed=0)
        data = SpeechCommands(root=Path(folder), calibration=700, chain=CHAIN).load()
        sizes = {name: len(part) for name, part in data.named().items()}
        print(f"clips: {sizes}; input {data.train.input_shapes[0]}")
        model = trained(data.train)
        backbone = orp.cut(
            model, after=["1", "2"], sample=torch.zeros(1, *data.train.input_shapes[0])
        )
        exits = orp.fit_branches(
            backbone,
            {
                "1": [
                    orp.SLViT(patch=4, dim=16, heads=4, standardise=True),
                    orp.ConvBranch(standardise=True),
                ],
                "2": [
                    orp.SLViT(patch=2, dim=16, heads=4, standardise=True),
                    orp.ConvBranch(standardise=True),
                ],
            },
            data.train,
            data.validation,
            seeds=[0],
            epochs=10,
            lr=1e-3,
        )
        print(orp.tradeoff(exits.collect(data.test)))
        calibration = exits.collect(data.named()["calibration"])
        try:
            policy = orp.calibrate(calibration, max_drop=0.1, confidence=0.9)
        except NoPolicyError as error:
            print(error)
            return
        test = exits.collect(data.test)
        spent = policy.cost(test).mean() / sum(backbone.stage_flops())
        right = (policy.answers(test).argmax(1) == test.labels).mean()
        print(f"{policy}\non unheard voices: {right:.1%} right at {spent:.0%} of the FLOPs")


if __name__ == "__main__":
    main()
