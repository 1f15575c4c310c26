"""Views: images flipped, shifted or partly erased, in the same way for each view number.

The change of a sample is drawn from its own random stream, named by seed, view and place. So a view
does not depend on the order or size of batches, and torch's own generators are not used.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from offramp.compute import random_stream
from offramp.data.given import as_samples
from offramp.data.prepared import PreparedSource
from offramp.data.samples import Batch, Samples, Source
from offramp.errors import PlanError, ShapeError
from offramp.preprocess import Preprocess, SpectrogramPreprocess
from offramp.spec import Spec

_SCHEME = "views 1"  # another number when the same settings come to give other pixels
_LEAST_ASPECT = 0.3  # of an erased rectangle, and its inverse; Zhong et al. 2020, section 4.2


class Augment(Spec):
    """Random changes to the images that branches train on; labels stay.

    Attributes:
        flip: Mirror left and right, with a chance of one half; not for spectrograms, whose columns
            are frequencies.
        shift: Move by up to this many whole pixels along each axis, or by a pair of numbers along
            rows and columns, which are time and frequency of a spectrogram; the border repeats the
            edge.
        erase: Blank one rectangle with 0, the mean of standardised inputs. Its share of the area
            is drawn up to this one (Zhong et al. 2020, "Random Erasing Data Augmentation").
        views: None makes a new view of each image in every epoch, which only `how="fused"`
            can do. A number makes this many views that epochs take in turn, which a cache can hold.
        seed: Seed of all draws.
    """

    flip: bool = False
    shift: NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt] = 0
    erase: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.0
    views: PositiveInt | None = None
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not (self.flip or any(self.shifts) or self.erase):
            raise ValueError(
                "nothing is switched on, so every view would be the image itself. Set flip, shift "
                "or erase, or leave augment out"
            )
        return self

    @property
    def shifts(self) -> tuple[int, int]:
        """Largest number of pixels to move by, up or down and left or right."""
        return (self.shift, self.shift) if isinstance(self.shift, int) else self.shift

    def check_inputs(self, inputs: Sequence[Preprocess]) -> None:
        """Refuse to mirror a spectrogram.

        Args:
            inputs: What prepares the inputs of the data; empty if that is not known.

        Raises:
            PlanError: It would.
        """
        if self.flip and any(isinstance(each, SpectrogramPreprocess) for each in inputs):
            raise PlanError(
                "flip mirrors left and right, which would turn low frequencies of a spectrogram "
                "into high ones. Leave it out; `shift: [8, 0]` moves spectrograms in time alone."
            )

    def view_in(self, epoch: int) -> int:
        """The number of the view that this epoch (from 1) trains on."""
        return epoch - 1 if self.views is None else (epoch - 1) % self.views

    def apply(self, image: Tensor, view: int, index: int) -> Tensor:
        """View number `view` of sample `index`, an image (C, H, W)."""
        # Each change has draws of its own, so that switching one on leaves the others as they were.
        draws = np.random.default_rng(random_stream(_SCHEME, self.seed, view, index)).random(7)
        flip, *moves = draws[:3]
        if self.flip and flip < 0.5:
            image = F.horizontal_flip(image)
        if any(self.shifts):
            image = _shifted(image, self.shifts, moves)
        if self.erase:
            image = _erased(image, self.erase, draws[3:])
        return image


class ViewSource(Source):
    """Some views of every image of a data set, view by view.

    With N images, sample `v * N + i` is view `views[v]` of image i, with its target.
    """

    finite = True  # the images are checked when they are read, and a view adds only zeros

    def __init__(self, images: Samples, augment: Augment, views: tuple[int, ...]) -> None:
        self.images, self.augment, self.views = images, augment, views
        self.threadsafe = images.threadsafe

    def __len__(self) -> int:
        return len(self.images) * len(self.views)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """See Source.

        Raises:
            ShapeError: The inputs are not one image each, or too small for the shift.
        """
        turns, places = np.divmod(rows, len(self.images))
        read = self.images.read(places)
        changed = [
            self.augment.apply(image, self.views[turn], int(place))
            for image, turn, place in zip(self._images(read.inputs), turns, places, strict=True)
        ]
        return Batch((torch.stack(changed),), read.targets, rows)

    @property
    def targets(self) -> NDArray[Any]:
        """Those of the images, once per view."""
        return np.concatenate([self.images.targets] * len(self.views))

    @property
    def digests(self) -> NDArray[np.str_]:
        """The image's and the number of the view."""
        return _per_view(self.images.digests, self.views)

    @property
    def settings(self) -> str:
        """See Source."""
        return f"{_SCHEME} {self.augment.model_dump_json()} {self.images.source.settings}"

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """See Source."""
        return self.images.input_shapes

    def _images(self, inputs: tuple[Tensor, ...]) -> Tensor:
        shapes = [tuple(values.shape[1:]) for values in inputs]
        if len(inputs) != 1 or inputs[0].ndim != 4:
            raise ShapeError(
                "augmentation works on one image (C, H, W) per sample, but samples have inputs of "
                f"shape {shapes}. Leave `augment` out. To train on views, give a data set that "
                "holds a fixed number of them as separate samples."
            )
        reach = zip(self.augment.shifts, shapes[0][1:], strict=True)
        if any(most >= side for most, side in reach):
            raise ShapeError(
                f"a shift by up to {max(self.augment.shifts)} pixels could leave nothing of an "
                f"image of shape {shapes[0]}. Make `shift` a small part of the image's side."
            )
        return inputs[0]


def views_of(data: Any, augment: Augment) -> Samples:
    """All views that a cache holds: sample `v * N + i` is view v of image i.

    Args:
        data: Any data set of N images that `fit_branches` takes.
        augment: Its `views` says how many, one if it is None.

    Raises:
        DataError: It is not a data set, or an empty one.
        PlanError: Spectrograms would be mirrored.
    """
    return _viewed(as_samples(data), augment, tuple(range(augment.views or 1)))


def augmented(data: Any, augment: Augment, view: int) -> Samples:
    """One view of each image, N samples; with `augment.view_in(epoch)`, those of an epoch.

    Raises:
        DataError: It is not a data set, or an empty one.
        PlanError: The number of the view is negative, or spectrograms would be mirrored.
    """
    if view < 0:
        raise PlanError(f"view is {view}, but views are numbered from 0.")
    return _viewed(as_samples(data), augment, (view,))


def _viewed(images: Samples, augment: Augment, views: tuple[int, ...]) -> Samples:
    if isinstance(images.source, PreparedSource):
        augment.check_inputs(images.source.inputs)
    clusters = None if images.clusters is None else np.tile(images.clusters, len(views))
    return Samples.of(
        ViewSource(images, augment, views),
        ids=None if images.ids is None else _per_view(images.ids, views),
        groups=None if images.groups is None else np.tile(images.groups, len(views)),
        clusters=clusters,
    )


def _per_view(names: NDArray[np.str_], views: tuple[int, ...]) -> NDArray[np.str_]:
    return np.array([f"{name} view {view}" for view in views for name in names])


def _shifted(image: Tensor, most: tuple[int, int], draws: list[float]) -> Tensor:
    """The image moved along both axes by whole pixels, -most..most, all equally likely."""
    top, left = (int(draw * (2 * reach + 1)) for draw, reach in zip(draws, most, strict=True))
    down, across = most
    padded = F.pad(image, [across, down, across, down], padding_mode="edge")
    moved: Tensor = F.crop(padded, top, left, *image.shape[-2:])
    return moved


def _erased(image: Tensor, most: float, draws: NDArray[np.float64]) -> Tensor:
    """The image with one rectangle of at most this share of its area set to 0."""
    share, aspect, down, across = draws
    rows, columns = image.shape[-2:]
    area = share * most * rows * columns
    tall = math.sqrt(area * _LEAST_ASPECT ** (2 * aspect - 1))
    height = min(max(int(tall), 1), rows)
    width = min(int(area / height), columns)
    top, left = int(down * (rows - height + 1)), int(across * (columns - width + 1))
    erased: Tensor = F.erase(image, top, left, height, width, image.new_zeros(()))
    return erased
