"""SL-ViT: a single-layer vision transformer as an early exit (paper, section 3.1)."""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from pydantic import PositiveInt
from torch import Tensor, fx, nn

from offramp.branches.absent import absent_sides, zeroed
from offramp.branches.attention import Attention
from offramp.branches.head import (
    POSITION_STD,
    Activation,
    HeadSettings,
    activation,
    he_normal_,
    mlp_head,
)
from offramp.branches.tap import (
    SideInput,
    Standardise,
    TapShapes,
    check_map,
    check_outputs,
    map_and_sides,
)
from offramp.errors import ShapeError
from offramp.spec import FeatureShape, TapShape

fx.wrap("rearrange")
fx.wrap("repeat")


class SLViT(HeadSettings):
    """Settings of an SL-ViT branch.

    Attributes:
        patch: Side of a square patch, in feature-map cells. It must divide height and width.
        dim: Embedding size D of one token.
        heads: Attention heads. Each head is D wide, so 15 more heads at D = 32 cost 0.06 M
            parameters (paper, table 11).
        layers: Encoder layers; the paper uses one, and two in table 11.
        last_residual: Keep the residual around the last MLP. Table 12 shows runs without it.
        final_norm: Normalise the tokens once more before the head; the paper's sizes allow both.
        mlp_activation: Activation in the encoder's MLP, which is 2D wide; the paper does not say.
    """

    kind: Literal["slvit"] = "slvit"
    patch: PositiveInt = 4
    dim: PositiveInt = 32
    heads: PositiveInt = 12
    layers: PositiveInt = 1
    last_residual: bool = True
    final_norm: bool = False
    mlp_activation: Activation = "gelu"

    def label(self) -> str:
        """A short name such as `slvit-p4-d32-h12-l2`; most defaults are left out."""
        own = {
            f"-l{self.layers}": self.layers > 1,
            "-nores": not self.last_residual,
            "-norm": self.final_norm,
            f"-enc-{self.mlp_activation}": self._differs("mlp_activation"),
        }
        return self._label(f"slvit-p{self.patch}-d{self.dim}-h{self.heads}", own)

    def build(self, features: TapShapes, num_outputs: int) -> "SLViTBranch":
        """Make a branch with new weights for a map, and side inputs where the cut has more taps.

        Raises:
            ShapeError: The first tap is not a map, or the patch does not divide it.
        """
        check_outputs(num_outputs)
        tap, sides = map_and_sides(features, "an SL-ViT")
        if tap.height % self.patch or tap.width % self.patch:
            fits = [p for p in range(1, min(tap.height, tap.width) + 1) if _divides(p, tap)]
            raise ShapeError(
                f"patch={self.patch} does not divide the {tap.height}x{tap.width} feature map, "
                f"and SL-ViT does not pad. Use one of {fits}, or cut elsewhere."
            )
        return SLViTBranch(self, tap, num_outputs, sides)


def _divides(patch: int, features: FeatureShape) -> bool:
    return features.height % patch == 0 and features.width % patch == 0


class Encoder(nn.Module):
    """One pre-norm transformer encoder layer: (B, N, D) to (B, N, D)."""

    def __init__(self, spec: SLViT, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.norm1 = nn.LayerNorm(spec.dim)
        self.attend = Attention(spec.dim, spec.heads)
        self.norm2 = nn.LayerNorm(spec.dim)
        self.mlp = nn.Sequential(
            nn.Linear(spec.dim, 2 * spec.dim),
            activation(spec.mlp_activation),
            nn.Linear(2 * spec.dim, spec.dim),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend, then transform each token; without `residual` the MLP's answer stands alone."""
        x = tokens + self.attend(self.norm1(tokens))
        y: Tensor = self.mlp(self.norm2(x))
        return x + y if self.residual else y


class SLViTBranch(nn.Module):
    """Transformer encoder over patches of a feature map, then the dense head.

    There is no class token: every token goes to the head (paper, section 3.1). Each side input,
    such as what is heard, is one more token (section 3.3): a vector of as many channels as the map
    is repeated to a patch and goes through the projection of the patches; another gets a linear
    layer of its own. One that is absent is a learned token.

    Shape:
        features (B, C, H, W), sides (B, C') or (B, C', H', W') -> outputs (B, num_outputs), with
        N = (H / patch) * (W / patch) tokens of size D in between, one more for each side input.
    """

    def __init__(
        self,
        spec: SLViT,
        features: FeatureShape,
        num_outputs: int,
        sides: tuple[TapShape, ...] = (),
    ) -> None:
        super().__init__()
        self.spec, self.features = spec, features
        tokens = features.height * features.width // spec.patch**2 + len(sides)
        self.standardise = Standardise(features.channels) if spec.standardise else nn.Identity()
        self.embed = nn.Linear(features.channels * spec.patch**2, spec.dim)
        read = [SideInput(side, standardise=spec.standardise) for side in sides]
        self.sides = nn.ModuleList(read)
        self.side_embed = nn.ModuleList(
            nn.Identity()
            if side.channels == features.channels
            else nn.Linear(side.channels, spec.dim)
            for side in read
        )
        self.absent = absent_sides(spec, len(sides))
        self.position = nn.Parameter(torch.empty(tokens, spec.dim))
        self.encoder = nn.Sequential(
            *(
                Encoder(spec, residual=spec.last_residual or layer < spec.layers - 1)
                for layer in range(spec.layers)
            )
        )
        self.norm = nn.LayerNorm(spec.dim) if spec.final_norm else nn.Identity()
        self.head = mlp_head(tokens * spec.dim, num_outputs, spec)
        he_normal_(self)
        nn.init.normal_(self.position, std=POSITION_STD)
        if self.absent is not None:
            self.token = nn.Parameter(torch.empty(len(sides), spec.dim))
            nn.init.normal_(self.token, std=POSITION_STD)

    def forward(self, features: Tensor, *sides: Tensor) -> Tensor:
        """Answer: (B, C, H, W) to (B, num_outputs), one more with an error predictor."""
        check_map(features, self.features)
        tokens = self._embed(self.standardise(features))
        if self.sides:
            tokens = torch.cat([tokens, *self._side_tokens(sides)], dim=1)
        x = self.encoder(tokens + self.position)  # (B, N, D)
        outputs: Tensor = self.head(rearrange(self.norm(x), "b n d -> b (n d)"))
        return outputs

    def _side_tokens(self, sides: tuple[Tensor, ...]) -> list[Tensor]:
        """One token (B, 1, D) of each side input."""
        absent = None if self.absent is None else self.absent(sides)  # (B, S)
        found = []
        for i, (side, read, embed) in enumerate(
            zip(sides, self.sides, self.side_embed, strict=True)
        ):
            vector = read(side)
            if absent is None:
                token = self._side_token(vector, embed)
            else:
                here = absent[:, i : i + 1]
                token = self._side_token(zeroed(vector, here), embed)
                token = torch.where(here, self.token[i], token)
            found.append(rearrange(token, "b d -> b 1 d"))
        return found

    def _side_token(self, vector: Tensor, embed: nn.Module) -> Tensor:
        """A side input (B, C) as a token (B, D)."""
        if isinstance(embed, nn.Identity):
            vector = repeat(vector, "b c -> b (c p)", p=self.spec.patch**2)
            embed = self.embed
        token: Tensor = embed(vector)
        return token

    def _embed(self, features: Tensor) -> Tensor:
        """Every patch as a token: (B, C, H, W) to (B, N, D).

        In training the weights are put in the order of channels-last taps, since they are fewer
        than the batch's values: a step at patch 4 takes 5 % less.
        """
        p = self.spec.patch
        if self.training and not isinstance(features, fx.Proxy):
            patches = rearrange(features, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p)
            weight = rearrange(self.embed.weight, "d (c p q) -> d (p q c)", p=p, q=p)
            return F.linear(patches, weight, self.embed.bias)
        patches = rearrange(features, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)
        tokens: Tensor = self.embed(patches)
        return tokens
