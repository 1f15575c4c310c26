"""A few test pictures and their answers, for the report and the demo."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from offramp.data import Samples
from offramp.data.images.pictures import PictureSource
from offramp.multiexit.model import MultiExit
from offramp.policy import ExitPolicy
from offramp.report import Picture
from offramp.run.opened import OpenRun

_SEED = 0


def answered_pictures(
    model: MultiExit, samples: Samples, number: int, policy: ExitPolicy
) -> Iterator[Picture]:
    """Some pictures, drawn evenly over the classes and answered one by one.

    Returns none if the samples are not pictures, or classes have no names.
    """
    if number == 0 or not _can_be_shown(model, samples):
        return
    opened, some = OpenRun(model), samples.sample(number, _SEED)
    for index in range(len(some)):
        pixels, label = some[index]
        answer = opened.run(pixels.numpy(), policy)
        yield Picture(_grey(pixels), model.info.class_names[label], answer)


def _can_be_shown(model: MultiExit, samples: Samples) -> bool:
    named = len(model.info.class_names) == model.num_outputs
    is_picture = isinstance(samples.source, PictureSource)
    return is_picture and named and model.task == "classification"


def _grey(pixels: Tensor) -> NDArray[np.uint8]:
    """A normalised (C, H, W) picture stretched to 0..255, (H, W)."""
    plane = pixels.mean(0)
    low, high = plane.min(), plane.max()
    return ((plane - low) / (high - low).clamp(min=1e-9) * 255).byte().numpy()
