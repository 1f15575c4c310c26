"""AudioCSRNet, which counts people in a picture with the help of sound (paper, section 4.1).

Sizes and constants are those of the SL-ViT paper where it differs from the original: an affine
batch norm, separate layers for gamma and beta, and a count by a dense layer of ones.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from offramp.backbones.weights import read_weights
from offramp.errors import BundleError

FUSION = (512, 512, 512, 256, 128, 64)
FRONT = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
"""Convolutions of VGG-16's `features[0:23]`, between whose groups the map is halved."""
SOUND = ((64,), (128,), (256, 256), (512, 512))
"""Convolutions of VGGish, after each group of which the map is halved."""
_FRONT_ENDS = {
    "vgg": ("vgg16*.pth", "torchvision's VGG-16, vgg16-397923af.pth"),
    "vggish": ("vggish*.pth", "a torch port of VGGish with features.0 to features.13"),
}
"""For each front end, what its file is called and where it is from."""
_DILATION = 2
_START_STD = 0.01
"""Of a convolution's weights at the start, as in the original."""


class AudioCSRNet(nn.Module):
    """Number of people from a picture and one second of sound.

    `density` gives the map whose sum is the count; `forward` adds the map up in a dense layer that
    starts as ones (section 4.3's second stage trains it).

    Shape:
        picture (B, 3, H, W), sound (B, 1, 96, 64) -> counts (B, 1); H and W are multiples of 8.

    Args:
        height: Of the pictures, in pixels; the last layer has a weight for each cell of the map.
        width: Of the pictures, in pixels.
        front: Channels of the convolutions before each of the three poolings and after the last.
        sound: Channels of the convolutions before each pooling of the sound.
        fusion: Channels of the fusion blocks.
    """

    def __init__(
        self,
        height: int = 576,
        width: int = 1024,
        *,
        front: Sequence[Sequence[int]] = FRONT,
        sound: Sequence[Sequence[int]] = SOUND,
        fusion: Sequence[int] = FUSION,
    ) -> None:
        super().__init__()
        self.vgg = nn.Sequential(*_convolutions(3, front)[:-1])  # not halved after the last group
        self.vggish = VGGish(sound)
        shrinkage = 2 ** (len(front) - 1)
        widths = [front[-1][-1], *fusion]
        self.fuse = nn.ModuleList(FusionBlock(a, b, sound[-1][-1]) for a, b in pairwise(widths))
        self.output = nn.Conv2d(fusion[-1], 1, 1)
        self.flatten = nn.Flatten()
        self.count = nn.Linear((height // shrinkage) * (width // shrinkage), 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_START_STD)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all of these have one
        nn.init.ones_(self.count.weight)

    def forward(self, picture: Tensor, sound: Tensor) -> Tensor:
        """Counts (B, 1)."""
        counts: Tensor = self.count(self.flatten(self.density(picture, sound)))
        return counts

    def density(self, picture: Tensor, sound: Tensor) -> Tensor:
        """Density maps (B, 1, H / 8, W / 8), whose cells sum to the count."""
        heard = self.vggish(sound)
        seen = self.vgg(picture)
        for block in self.fuse:
            seen = block(seen, heard)
        density: Tensor = self.output(seen)
        return density


class FusionBlock(nn.Module):
    """A dilated convolution of what is seen, scaled and shifted by what is heard.

    Shape:
        seen (B, inputs, H, W), heard (B, D) -> (B, width, H, W).
    """

    def __init__(self, inputs: int, width: int, heard: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, padding=_DILATION, dilation=_DILATION)
        self.norm = nn.BatchNorm2d(width)
        self.gamma = nn.Linear(heard, width)
        self.beta = nn.Linear(heard, width)
        self.relu = nn.ReLU()

    def forward(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Fuse both."""
        gamma, beta = (layer(heard)[:, :, None, None] for layer in (self.gamma, self.beta))
        fused: Tensor = self.relu(gamma * self.norm(self.conv(seen)) + beta)
        return fused


class VGGish(nn.Module):
    """Convolutions of VGGish and the mean over the map: (B, 1, 96, 64) to (B, 512)."""

    def __init__(self, widths: Sequence[Sequence[int]] = SOUND) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolutions(1, widths))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()

    def forward(self, sound: Tensor) -> Tensor:
        """Features of one second of sound."""
        heard: Tensor = self.flatten(self.mean(self.features(sound)))
        return heard


def _convolutions(inputs: int, groups: Sequence[Sequence[int]]) -> list[nn.Module]:
    """3x3 convolutions, each with ReLU, and after each group a pooling that halves the map."""
    layers: list[nn.Module] = []
    for group in groups:
        for width in group:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return layers


def upsampled(density: Tensor, scale: int = 8) -> Tensor:
    """Density maps (..., H, W) as (..., scale * H, scale * W), with the same sum (section 4.1)."""
    return (density / scale**2).repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def front_ends(folder: Path, model: nn.Module) -> dict[str, Tensor] | None:
    """A state dict with the weights that a folder holds for both front ends; the rest stays new.

    Returns None if the path is not a folder.

    Raises:
        BundleError: A file is missing, or is not of this network.
    """
    if not folder.is_dir():
        return None
    state = model.state_dict()
    for part, (pattern, source) in _FRONT_ENDS.items():
        given = read_weights(_only(folder, pattern, source))
        for name in [each for each in state if each.startswith(f"{part}.")]:
            tensor = given.get(f"features.{name.removeprefix(part).removeprefix('.features')[1:]}")
            if tensor is None or tensor.shape != state[name].shape:
                raise BundleError(
                    f"{folder / pattern} lacks weights for {name} of shape "
                    f"{tuple(state[name].shape)}. Use {source}."
                )
            state[name] = tensor
    return state


def _only(folder: Path, pattern: str, source: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise BundleError(
            f"{folder} has {len(found)} files that match {pattern}, but needs exactly one: "
            f"{source}. If you do not want pretrained front ends, leave out weights."
        )
    return found[0]
