"""Exits that count people by sight and sound, on made crowds.

python examples/05_counts.py      (needs pip install 'offramp[train,audio]')

The crowds are synthetic: people drawn on made ground, four in ten scenes in the dark, each with a
second of noise that grows with the crowd. They are written in the layout of DISCO and read by its
reader, so the errors say nothing about real crowds. A narrow AudioCSRNet is trained in the paper's
two stages, then exits at the paper's three places: V1 reads what is seen, AV1 what is seen and what
is heard, AV2 what the first fusion made of both. `crowds.png`, in the working folder, shows a
bright and a dark scene with their density maps and the count of every exit, like the paper's
Figure 3. All of it takes about two minutes on two cores.
"""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import soundfile
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

import offramp as orp
from offramp.backbones.paper.audiocsrnet import FRONT, FUSION, SOUND, AudioCSRNet
from offramp.backbones.zoo import build
from offramp.data import Samples
from offramp.data.crowds import Disco
from offramp.data.density import maps_of
from offramp.data.published import MARK
from offramp.errors import NoPolicyError
from offramp.run.finetune_plan import FinetunePlan
from offramp.run.finetuning import finetune
from offramp.run.plan import Plan
from offramp.run.steps import train

MOST = 60
"""People in a scene."""
SCENES = {"train": 1200, "val": 150, "test": 300}
SIZE = (192, 256)
"""Height and width of a picture, in pixels."""
INPUT = (96, 128)
"""Height and width that the network reads."""
RATE = 16_000
GROUNDS = ((128, 124, 118), (150, 132, 104), (104, 122, 84), (140, 108, 92))
HAIR = ((40, 28, 20), (90, 60, 35), (200, 170, 120), (25, 25, 28), (225, 190, 160))
NETWORK = f"{__file__}:network"
"""As `--backbone` of the command line names it."""
Floats = NDArray[np.floating]


def write(root: Path, seed: int) -> None:
    """The folders of DISCO, with the mark that the files only stand in for it."""
    rng = np.random.default_rng(seed)
    for name in ("imgs", "auds", *(f"density/{split}" for split in SCENES)):
        (root / name).mkdir(parents=True)
    for split, number in SCENES.items():
        for scene in range(number):
            dark = rng.random() < 0.4
            name = f"{'dark' if dark else 'bright'}_{split}_{scene:04d}"
            heads = places(int(rng.integers(0, MOST + 1)), rng)
            dots = np.zeros(SIZE, np.uint8)
            np.add.at(dots, tuple(heads.astype(int).T), 1)
            picture(heads, rng, dark=dark).save(root / "imgs" / f"{name}.jpg", quality=90)
            soundfile.write(root / "auds" / f"{name}.wav", sound(len(heads), rng), RATE)
            (root / "density" / split / f"{name}.mat").write_bytes(matlab(dots))
    (root / MARK).touch()


def matlab(dots: NDArray[np.uint8]) -> bytes:
    """Content of a MATLAB file, without the date in its header: equal dots give equal bytes."""
    file = io.BytesIO()
    scipy.io.savemat(file, {"map": dots})
    return b"MATLAB 5.0 MAT-file".ljust(116) + file.getvalue()[116:]


def places(number: int, rng: np.random.Generator) -> Floats:
    """Where the heads are (N, 2), row and column: most people stand in three groups."""
    centres = rng.uniform(20, np.array(SIZE) - 30, (3, 2))
    heads = centres[rng.integers(0, 3, number)] + rng.normal(scale=22, size=(number, 2))
    alone = rng.random(number) < 0.4
    heads[alone] = rng.uniform(0, SIZE, (alone.sum(), 2))
    return np.clip(heads, 0, np.array(SIZE) - 1)


def picture(heads: Floats, rng: np.random.Generator, *, dark: bool) -> Image.Image:
    """People on uneven ground, in light and shadow; whoever is nearer is larger and in front."""
    image = ground(rng)
    draw = ImageDraw.Draw(image, "RGBA")
    lean = rng.uniform(-3, 3)  # of the shadows
    for y, x in sorted(heads.tolist()):
        r = rng.uniform(0.9, 1.1) * (2.5 + 2.5 * y / SIZE[0])
        hair = tuple((rng.choice(HAIR) + rng.integers(-12, 13, 3)).tolist())
        clothes = tuple(rng.integers(20, 235, 3).tolist())
        left, right = sorted((x, x + lean * r))
        draw.ellipse((left - r, y + 3.4 * r, right + r, y + 5 * r), fill=(0, 0, 0, 90))
        draw.ellipse((x - 1.5 * r, y + 0.3 * r, x + 1.5 * r, y + 4.4 * r), fill=clothes)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=hair)
    light = rng.uniform(0.1, 0.3) if dark else rng.uniform(0.75, 1.1)
    values = light * shade(rng)[..., None] * np.asarray(image, np.float32)
    values += (12 if dark else 3) * rng.standard_normal(values.shape, np.float32)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def ground(rng: np.random.Generator) -> Image.Image:
    """Noise at four scales on a colour."""
    height, width = SIZE
    relief = np.zeros(SIZE, np.float32)
    for cells, weight in ((4, 18), (12, 12), (40, 10), (128, 8)):
        grid = Image.fromarray(rng.standard_normal((cells * 3 // 4, cells), np.float32))
        relief += weight * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
    values = np.array(rng.choice(GROUNDS), np.float32) + relief[..., None]
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def shade(rng: np.random.Generator) -> Floats:
    """Factors (H, W): light from one side, and the shadow of something large."""
    y, x = (np.linspace(-0.5, 0.5, side, dtype=np.float32) for side in SIZE)
    light, across = (
        x * np.cos(angle) + y[:, None] * np.sin(angle) for angle in rng.uniform(0, 2 * np.pi, 2)
    )
    shadow = 1 / (1 + np.exp(-60 * (across - rng.uniform(-0.4, 0.4))))
    return np.asarray((1 + 0.35 * light) * (1 - 0.4 * shadow), np.float32)


def sound(people: int, rng: np.random.Generator) -> Floats:
    """One second of hiss and of murmur, in which some people are louder than others."""
    spectrum = np.fft.rfft(rng.standard_normal(RATE, np.float32))
    spectrum /= (1 + (np.fft.rfftfreq(RATE, 1 / RATE) / 500) ** 2) ** 0.75
    murmur = np.fft.irfft(spectrum, RATE)
    level = 0.02 * np.sqrt(rng.lognormal(-0.4, 0.9, people).sum())
    hiss = rng.uniform(0.004, 0.008) * rng.standard_normal(RATE)
    heard: Floats = np.clip(level * murmur / murmur.std() + hiss, -1, 1)
    return heard


def network() -> nn.Module:
    """An AudioCSRNet of a sixteenth of the width.

    The paper starts both front ends from weights that were trained on other data. Here they start
    at random, at a scale that keeps signals alive in layers without batch norm.
    """

    def narrow(groups: Sequence[Sequence[int]]) -> list[list[int]]:
        return [[width // 16 for width in group] for group in groups]

    net = AudioCSRNet(
        *INPUT,
        front=narrow(FRONT),
        sound=narrow(SOUND),
        fusion=narrow([FUSION])[0],
    )
    for module in (*net.vgg, *net.vggish.features):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net.to(memory_format=torch.channels_last)  # a third faster on a CPU


def finetune_plan(data: Disco) -> FinetunePlan:
    """First the density maps, then the count (section 4.2)."""
    stage = {"optimiser": "adamw", "batch_size": 16, "lr_decay": 0.75}
    return FinetunePlan.model_validate(
        {
            "task": "regression",
            "backbone": {"name": "python"},
            "data": data,
            "top": None,
            "density": {**stage, "epochs": 10, "lr": 3e-3, "weight_decay": 1e-4},
            "train": {**stage, "epochs": 3, "lr": 3e-4, "weight_decay": 1e-5},
        }
    )


def exits_plan(data: Disco, backbone: Path) -> Plan:
    """The paper's three places, each with both kinds of branch."""
    tail = {"hidden": 64, "standardise": True, "error_predictor": True}
    branches = [
        {"kind": "slvit", "patch": 4, "dim": 16, "heads": 4, **tail},
        {"kind": "conv", "padding": 1, "pool": 4, **tail},
    ]
    return Plan.model_validate(
        {
            "task": "regression",
            "backbone": {"name": "python", "weights": str(backbone)},
            "data": data,
            "cuts": {
                "V1": {"taps": ["vgg"]},
                "AV1": {"taps": ["vgg", "vggish"]},
                "AV2": {"taps": ["fuse.0"]},
            },
            "branches": dict.fromkeys(("V1", "AV1", "AV2"), branches),
            "train": {"epochs": 20, "batch_size": 32, "lr": 1e-3, "seeds": [0]},
            "evaluate": {"timing_repeats": 5, "timing_warmup": 1},
        }
    )


def people_in(outputs: orp.ExitOutputs) -> NDArray[np.float64]:
    """(N,) true counts."""
    return np.asarray(outputs.labels, np.float64)


def by_light(outputs: orp.ExitOutputs) -> str:
    """The error of every exit, in bright and in dark scenes."""
    dark = np.char.startswith(np.asarray(outputs.ids, np.str_), "dark")
    errors = np.abs(outputs.outputs[..., 0] - people_in(outputs))
    lines = [
        f"{name:6} {errors[row, ~dark].mean():6.2f} {errors[row, dark].mean():6.2f}"
        for row, name in enumerate(outputs.names)
    ]
    return "\n".join(["MAE    bright   dark", *lines])


def draw(net: nn.Module, test: Samples, outputs: orp.ExitOutputs, pictures: Path) -> Figure:
    """The first bright and the first dark scene with 30 people or more."""
    names, people = np.asarray(outputs.ids, np.str_), people_in(outputs)
    figure = Figure(figsize=(9, 3.7), layout="constrained")
    grid = figure.subplots(2, 4, width_ratios=(5, 5, 5, 4))
    for axes, light in zip(grid, ("bright", "dark"), strict=True):
        row = int(np.flatnonzero(np.char.startswith(names, light) & (people >= 30))[0])
        with torch.no_grad():
            found = net.density(*test.read([row]).inputs)[0, 0]  # type: ignore[operator]
        true = maps_of(test, np.array([row]))[0]
        with Image.open(pictures / f"{names[row]}.jpg") as image:
            axes[0].imshow(image)
        axes[1].imshow(true, vmin=0, vmax=true.max())
        axes[2].imshow(found, vmin=0, vmax=true.max())
        titles = (
            f"a {light} scene (made)",
            f"density map: {people[row]:.0f} people",
            f"the network's: {found.sum():.1f}",
        )
        for each, title in zip(axes, titles, strict=False):
            each.set_title(title, fontsize=10)
            each.set_axis_off()
        draw_counts(axes[3], outputs, row)
    return figure


def draw_counts(axes: Axes, outputs: orp.ExitOutputs, row: int) -> None:
    """What every exit counts in a scene, beside the truth."""
    counts, true = outputs.outputs[:, row, 0], people_in(outputs)[row]
    axes.barh(outputs.names, counts, color="#0072b2", height=0.6)
    for place, count in enumerate(counts):
        axes.text(2, place, f"{count:.1f}", color="white", va="center", fontsize=9)
    axes.axvline(true, color="#d55e00", linestyle="--")
    axes.set_xlim(0, MOST)
    axes.set_title(f"people counted (true: {true:.0f})", fontsize=10)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Write, finetune, train exits, calibrate, and draw."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root / "crowds", seed=0)
        data = Disco(root=root / "crowds", image_size=INPUT, calibration=300)
        splits = data.load()
        given: Any = {"splits": splits, "backbone_file": NETWORK}
        # One thread trains, so that reading the samples has the other core.
        print(finetune(finetune_plan(data), root / "backbone", threads=1, **given))
        print(train(exits_plan(data, root / "backbone"), root / "run", **given))
        calibration, test = (
            orp.ExitOutputs.load(root / "run" / "outputs" / f"{name}.npz")
            for name in ("calibration", "test")
        )
        print(by_light(test))
        try:
            policy = orp.calibrate(calibration, max_rise=1.0, loss_bound=20)
        except NoPolicyError as error:
            print(error)
        else:
            mae = np.abs(policy.answers(test)[:, 0] - people_in(test)).mean()
            spent = policy.cost(test).mean() / test.own_path_cost()[-1]
            print(f"{policy}\non test scenes: MAE {mae:.2f} at {spent:.0%} of the FLOPs")
        net = build("python", weights=root / "backbone", backbone_file=NETWORK)
        draw(net, splits.test, test, root / "crowds" / "imgs").savefig("crowds.png")
        print("drawn: crowds.png")


if __name__ == "__main__":
    main()
