"""Survey of a backbone: where it can be cut, the costs, and the branches that fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from offramp.backbones.places import Place, list_places
from offramp.backbones.zoo import PYTHON, architecture, describe
from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.compute import count_params
from offramp.errors import PlanError, ShapeError
from offramp.preprocess import Preprocess
from offramp.spec import FeatureShape

_NEARLY = 0.05
"""Shares of the FLOPs this near to the best count as equally good for a suggestion."""

_REACH = 0.1
"""An end of a block this near to the share, and nearer to it than to another one, is as good."""
_MOST_PICKS = 1000
_LARGEST_SIZE = 65_536


@dataclass(frozen=True)
class SurveyedPlace:
    """A place with the branches that fit there.

    Attributes:
        patches: Sides of patches that divide the map into at least 2x2; empty if it is not a map.
        branch_params: Parameters of the default branches that fit, by label: an SL-ViT with the
            largest of these patches up to 4, and the convolutional baseline.
    """

    place: Place
    patches: tuple[int, ...]
    branch_params: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """One row of `offramp cuts --json`."""
        place = self.place
        return {
            "name": place.name,
            "aliases": list(place.aliases),
            "kind": place.kind,
            "shape": list(place.shape),
            "axes": list(place.axes),
            "live_tensors": place.live_tensors,
            "live_bytes": place.live_bytes,
            "flops_share": place.flops_share,
            "patches": list(self.patches),
            "branch_params": dict(self.branch_params),
        }


@dataclass(frozen=True)
class Survey:
    """Places of one backbone for one size of input.

    Attributes:
        backbone: Its name.
        inputs: Shapes of the inputs, without the batch axis.
        total_flops: FLOPs of the whole network with its top, for one sample (2mac).
        cuts: Places, in graph order.
        named_cuts: Places of the cuts that the backbone names itself, which a plan may use.
        weights_expect: Preprocessing that its weights expect of each input; empty if unknown.
    """

    backbone: str
    inputs: tuple[tuple[int, ...], ...]
    total_flops: int
    cuts: tuple[SurveyedPlace, ...]
    named_cuts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weights_expect: tuple[Preprocess, ...] = ()

    def suggest(self, shares: Sequence[float]) -> "Survey":
        """Only the places nearest to these shares of the FLOPs, one for each.

        Only maps that a patch divides into at least 2x2 patches count. Each place is taken once,
        no two of them with the same FLOPs. Among places at nearly the same share (5 % of the
        network's FLOPs apart) the ends of blocks win, and so does one within 10 % of the share
        that is not halfway to another share; then the nearest; on ties fewer live tensors, then
        the later place.

        Raises:
            PlanError: A share is not between 0 and 1, or there are fewer such places.
        """
        if not shares or not all(0 < share < 1 for share in shares):
            raise PlanError(f"Shares of the FLOPs lie between 0 and 1; got {list(shares)}.")
        left = [cut for cut in reversed(self.cuts) if cut.patches and 0 < cut.place.flops_share < 1]
        chosen: list[SurveyedPlace] = []
        for share in shares:
            if not left:
                raise PlanError(
                    f"{self.backbone} has only {len(chosen)} suitable places for {len(shares)} "
                    "shares: each share needs a place of its own, with FLOPs unlike the others' "
                    "and a feature map that some SL-ViT patch size divides evenly. Ask for fewer, "
                    "or give a larger input."
                )
            best = _nearest(left, share, [each for each in shares if each != share])
            left = [cut for cut in left if cut.place.flops != best.place.flops]
            chosen.append(best)
        return replace(self, cuts=tuple(cut for cut in self.cuts if cut in chosen))

    def as_json(self) -> dict[str, Any]:
        """What `offramp cuts --json` prints."""
        return {
            "backbone": self.backbone,
            "input": ", ".join(_by(shape) for shape in self.inputs),
            "total_flops": self.total_flops,
            "cuts": [cut.as_json() for cut in self.cuts],
            "named_cuts": {name: list(places) for name, places in self.named_cuts.items()},
            "weights_expect": [spec.model_dump(mode="json") for spec in self.weights_expect],
        }

    def __str__(self) -> str:
        """A table in graph order."""
        rows = self.cuts
        width = max([len("place"), *(len(cut.place.name) for cut in rows)])
        head = f"{'place':<{width}}  {'shape':>12}  {'FLOPs':>6}  {'live':>4}  {'bytes':>10}"
        lines = [
            f"{self.backbone}, input {', '.join(map(_by, self.inputs))}: "
            f"{self.total_flops / 1e9:.3f} GFLOP (2 per multiply-add), {len(rows)} places",
            f"{head}  patches; parameters of branches",
            *(_row(cut, width) for cut in rows),
            *self._remarks(),
        ]
        return "\n".join(lines)

    def _remarks(self) -> Iterator[str]:
        if self.named_cuts:
            named = (f"{name} ({', '.join(at)})" for name, at in self.named_cuts.items())
            yield f"named cuts: {', '.join(named)}"
        if self.weights_expect:
            shapes = (_by(each.shape) for each in self.weights_expect)
            yield f"its weights expect inputs of {', '.join(shapes)}; --json has the details"


def survey_model(
    model: nn.Module,
    sample: Tensor | tuple[Tensor, ...],
    *,
    name: str | None = None,
    leaves: Sequence[type[nn.Module] | str] = (),
) -> Survey:
    """Survey a model; what it holds as weights does not matter, `leaves` are those of `cut`.

    Raises:
        CutError: It cannot be traced or run on the sample.
    """
    listing = list_places(model, sample, leaves=leaves)
    inputs = sample if isinstance(sample, tuple) else (sample,)
    sizes = _BranchSizes(listing.num_outputs)
    return Survey(
        backbone=name or type(model).__name__,
        inputs=tuple(tuple(tensor.shape[1:]) for tensor in inputs),
        total_flops=listing.total_flops,
        cuts=tuple(
            SurveyedPlace(
                place,
                place.features.patches if place.features else (),
                sizes.at(place.features) if place.features else {},
            )
            for place in listing.places
        ),
    )


def survey_backbone(
    name: str | None,
    backbone_file: str | None,
    inputs: Sequence[str],
    suggest: str | None = None,
    leaves: Sequence[str] = (),
) -> Survey:
    """Survey a backbone by name, as `offramp cuts` does; no weights are loaded.

    Args:
        name: As in `offramp.backbones.zoo.build`; None with a `backbone_file`.
        backbone_file: `path/to/file.py:function` in its place.
        inputs: `CxHxW` of each input.
        suggest: How many places to pick, at even shares of the FLOPs, or the shares: `0.2,0.5`.
        leaves: Names of module classes to keep whole, as in `cut`.

    Raises:
        PlanError: An argument is wrong.
        CutError: The backbone cannot be traced or run on such inputs.
    """
    if (name in (None, PYTHON)) != (backbone_file is not None):
        raise PlanError("Give a backbone's name or --backbone path/to/file.py:function, not both.")
    shares = None if suggest is None else _shares(suggest)
    sample = tuple(torch.zeros(1, *_shape(text)) for text in inputs)
    entry = describe(name or PYTHON)
    model = architecture(entry.name, backbone_file=backbone_file)
    found = replace(
        survey_model(model, sample, name=backbone_file or name, leaves=leaves),
        named_cuts={key: cut.places for key, cut in entry.cuts.items()},
        weights_expect=entry.inputs,
    )
    return found if shares is None else found.suggest(shares)


class _BranchSizes:
    """Parameters of the default branches, each shape counted once."""

    def __init__(self, num_outputs: int) -> None:
        self._num_outputs = num_outputs
        self._known: dict[FeatureShape, dict[str, int]] = {}

    def at(self, features: FeatureShape) -> dict[str, int]:
        if features not in self._known:
            self._known[features] = {
                spec.label(): size
                for spec in _defaults(features)
                if (size := self._size(spec, features)) is not None
            }
        return self._known[features]

    def _size(self, spec: BranchSpec, features: FeatureShape) -> int | None:
        try:
            with torch.device("meta"):
                return count_params(spec.build(features, self._num_outputs))
        except ShapeError:  # the map is too small for this branch
            return None


def _defaults(features: FeatureShape) -> list[BranchSpec]:
    patches = [patch for patch in features.patches if patch <= 4]
    return [*(SLViT(patch=patch) for patch in patches[-1:]), ConvBranch()]


def _nearest(cuts: Sequence[SurveyedPlace], share: float, others: Sequence[float]) -> SurveyedPlace:
    apart = [abs(cut.place.flops_share - share) for cut in cuts]
    reach = min([_REACH, *(abs(each - share) / 2 for each in others)])
    limit = max(min(apart) + _NEARLY, reach)
    near = [
        (not cut.place.ends_block, distance, cut.place.live_tensors, index)
        for index, (cut, distance) in enumerate(zip(cuts, apart, strict=True))
        if distance <= limit
    ]
    return cuts[min(near)[-1]]


def _shares(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(
            f"--suggest {text!r} is neither a count such as 3 nor shares such as 0.25,0.5."
        ) from None
    if len(numbers) == 1 and numbers[0].is_integer() and numbers[0] >= 1:
        count = int(numbers[0])
        if count > _MOST_PICKS:
            raise PlanError(
                f"--suggest {text} asks for more places than any backbone has. Give a count up to "
                f"{_MOST_PICKS:,}."
            )
        return [(index + 1) / (count + 1) for index in range(count)]
    return numbers


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.lower().split("x")
    if not all(size.isdigit() and 1 <= int(size) <= _LARGEST_SIZE for size in sizes):
        raise PlanError(
            f"--input {text!r} is not a shape. Write CxHxW, such as 3x224x224, with sizes up to "
            f"{_LARGEST_SIZE:,}."
        )
    return tuple(map(int, sizes))


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _row(cut: SurveyedPlace, width: int) -> str:
    place = cut.place
    return (
        f"{place.name:<{width}}  {_by(place.shape):>12}  {place.flops_share:>6.1%}  "
        f"{place.live_tensors:>4}  {place.live_bytes:>10,}  {_what_fits(cut)}"
    )


def _what_fits(cut: SurveyedPlace) -> str:
    if cut.place.features is None:
        return f"not a map: {' x '.join(cut.place.axes)}"
    branches = ", ".join(f"{name} {size:,}" for name, size in cut.branch_params.items())
    return f"{' '.join(map(str, cut.patches)) or '-'}; {branches or '-'}"
