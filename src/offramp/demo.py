"""The demo: one picture at a time through a trained model, leaving at the first sure exit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.cost import with_passed
from offramp.data.images import LabelledImages
from offramp.multiexit import MultiExit
from offramp.plan import Plan, load_plan

_SHADES = " .:-=+*#%@"


@dataclass(frozen=True)
class OneAnswer:
    """How one picture was answered.

    Attributes:
        picture: Grey values 0 to 255, (H, W).
        exit: Name of the exit that answered.
        confidence: Its maximum softmax.
        flops: Spent, the branches passed on the way included.
        saved: Share of the whole backbone's FLOPs that was not spent; below 0 when the last exit
            answered after branches that did not.
    """

    picture: NDArray[np.uint8]
    exit: str
    answer: str
    truth: str
    confidence: float
    flops: int
    saved: float

    def sketch(self, width: int = 28) -> str:
        """The picture in characters, two per cell so that it looks square."""
        step = max(1, self.picture.shape[1] // width)
        cells = self.picture[::step, ::step].astype(int) * (len(_SHADES) - 1) // 255
        return "\n".join("".join(_SHADES[c] for c in row) for row in cells[::2])


def demo_plan() -> Plan:
    """The plan that `offramp demo` trains; shipped as `offramp/demo.yaml`."""
    with resources.as_file(resources.files("offramp") / "demo.yaml") as path:
        return load_plan(Path(path))


def answer_one_by_one(
    model: MultiExit,
    images: LabelledImages,
    indices: Sequence[int],
    class_names: Sequence[str],
    *,
    threshold: float,
) -> Iterator[OneAnswer]:
    """Walk the exits for one picture at a time and stop at the first that is sure enough.

    The threshold is a fixed number here; nothing says how often an early answer will be wrong.
    """
    stage_flops, branch_flops = model.exit_stage_flops(), model.exit_branch_flops()
    costs = dict(zip(model.names, with_passed(stage_flops, branch_flops), strict=True))
    for index in indices:
        pixels, truth = images[index]
        with torch.inference_mode():
            for name, logits in model.walk(pixels[None]):
                probabilities = logits[0].double().softmax(0)
                if probabilities.max() >= threshold:
                    break
        yield OneAnswer(
            picture=_grey(pixels),
            exit=name,
            answer=class_names[int(probabilities.argmax())],
            truth=class_names[truth],
            confidence=float(probabilities.max()),
            flops=int(costs[name]),
            saved=1 - costs[name] / sum(stage_flops),
        )


def _grey(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """A normalised (C, H, W) picture stretched to 0..255, (H, W)."""
    plane = pixels.mean(0)
    low, high = plane.min(), plane.max()
    return ((plane - low) / (high - low).clamp(min=1e-9) * 255).byte().numpy()
