"""OneAnswer: one picture through a model exit by exit, leaving at the first that is sure enough."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.cost import with_passed
from offramp.data import Samples
from offramp.data.images.pictures import PictureSource
from offramp.multiexit.model import MultiExit
from offramp.policy.decision import fires
from offramp.report import Picture

_SHADES = " .:-=+*#%@"


@dataclass(frozen=True, eq=False)
class OneAnswer(Picture):
    """How one picture was answered.

    Attributes:
        flops: Spent, the branches passed on the way included.
    """

    flops: int

    def __str__(self) -> str:
        right = "right" if self.answer == self.truth else f"wrong, it is {self.truth}"
        facts = [
            f"{self.answer} ({right})",
            f"exit       {self.exit}",
            f"confidence {self.confidence:.3f}",
            f"spent      {self.flops / 1e6:.1f} MFLOP",
            f"saved      {self.saved:.1%} of the whole backbone",
        ]
        lines = zip_longest(self.sketch().splitlines(), facts, fillvalue="")
        return "\n".join(f"  {line:<28}   {fact}".rstrip() for line, fact in lines)

    def sketch(self, width: int = 28) -> str:
        """The picture in characters; a character is about twice as high as wide."""
        step = max(1, self.image.shape[1] // width)
        cells = self.image[::step, ::step].astype(int) * (len(_SHADES) - 1) // 255
        return "\n".join("".join(_SHADES[c] for c in row) for row in cells[::2])


def shows_pictures(model: MultiExit, samples: Samples) -> bool:
    """Whether samples can be shown and named: one picture each, of a class with a name."""
    named = len(model.info.class_names) == model.num_outputs
    is_picture = isinstance(samples.source, PictureSource)
    return is_picture and named and model.task == "classification"


def answer_one_by_one(
    model: MultiExit, images: Samples, indices: Iterable[int], threshold: float
) -> Iterator[OneAnswer]:
    """Walk the exits for one picture at a time and stop at the first that is sure enough.

    The threshold is a fixed number here; nothing says how often an early answer will be wrong.
    """
    stage_flops, branch_flops = model.exit_stage_flops(), model.exit_branch_flops()
    costs = dict(zip(model.names, with_passed(stage_flops, branch_flops), strict=True))
    classes = model.info.class_names
    for index in indices:
        pixels, truth = images[index]
        name, probabilities = _first_sure(model, pixels[None], threshold)
        yield OneAnswer(
            image=_grey(pixels),
            exit=name,
            answer=classes[int(probabilities.argmax())],
            truth=classes[truth],
            confidence=float(probabilities.max()),
            flops=int(costs[name]),
            saved=1 - float(costs[name]) / sum(stage_flops),
        )


def _first_sure(model: MultiExit, inputs: Tensor, threshold: float) -> tuple[str, Tensor]:
    """Name and class probabilities (K,) of the first exit at or above the threshold."""
    with torch.inference_mode():
        for exit_name, logits in model.walk(inputs.to(model.device)):
            name, probabilities = exit_name, logits[0].cpu().double().softmax(0)
            if fires(float(probabilities.max()), threshold):
                break
    return name, probabilities


def _grey(pixels: Tensor) -> NDArray[np.uint8]:
    """A normalised (C, H, W) picture stretched to 0..255, (H, W)."""
    plane = pixels.mean(0)
    low, high = plane.min(), plane.max()
    return ((plane - low) / (high - low).clamp(min=1e-9) * 255).byte().numpy()
