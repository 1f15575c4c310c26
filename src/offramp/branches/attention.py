"""Multi-head self-attention as in Keras: the width of a head is a setting of its own."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, fx, nn

fx.wrap("rearrange")

MOST_TOKENS_WRITTEN_OUT = 100
"""Up to this many tokens, training on a CPU computes all scores explicitly; see `Attention`."""
# Forward and backward at batch 64 on one core, time of the fused kernel over that of the
# regrouped form, for 16, 49, 100, 196 and 400 tokens:
#   dim 32, heads 12: 2.1  1.8  1.4  1.1  0.6
#   dim 16, heads 4:  1.3  1.3  1.1  0.8  0.7
#   dim 16, heads 1:  0.8  1.0  1.0  0.8  0.8
#   dim 64, heads 8:  2.1  1.8  1.6  1.3  1.2
# Under bf16 autocast it is 3.7 to 7.0 for 49 and 100 tokens, 2.0 to 3.2 for 196 and 400.


class Attention(nn.Module):
    """Self-attention with `heads` heads of width `dim` each: (B, N, D) to (B, N, D).

    Equal to Keras's `MultiHeadAttention(num_heads=heads, key_dim=dim)`, which the paper's sizes
    require. Query, key and value are one dense layer with the weights of three.

    Training on a CPU with few tokens regroups the products, which takes fewer operations and gives
    the same answers and gradients up to rounding. This was not measured on other devices, so they
    compute as in evaluation.
    """

    einsum_in_keras = True
    """The TensorFlow profiler, and so the paper's FLOPs, do not count the products in here."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * heads * dim)
        self.project = nn.Linear(heads * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let every token read all tokens: (B, N, D) to (B, N, D)."""
        if self.training and _few_on_a_cpu(tokens):
            return self._attend_regrouped(tokens)
        qkv = rearrange(self.qkv(tokens), "b n (k h d) -> k b h n d", k=3, h=self.heads)
        query, key, value = qkv  # (B, heads, N, D) each
        read = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.project(rearrange(read, "b h n d -> b n (h d)"))
        return output

    def _attend_regrouped(self, tokens: Tensor) -> Tensor:
        """The same with the weights multiplied first: (B, N, D) to (B, N, D).

        Heads are as wide as tokens, so the four projections can be merged into two, and all heads
        of a sample share one product with its tokens. The key's bias adds the same number to all
        scores of a query, which softmax cancels. The value's bias passes unchanged, because softmax
        sums to one.
        """
        asks, shift = self._query_key()
        asked = rearrange(F.linear(tokens, asks, shift), "b n (h d) -> b (n h) d", h=self.heads)
        scores = torch.bmm(asked, tokens.transpose(1, 2))  # (B, N * heads, N)
        read = torch.bmm(torch.softmax(scores, dim=-1), tokens)
        return F.linear(
            rearrange(read, "b (n h) d -> b n (h d)", h=self.heads), *self._value_output()
        )

    def _query_key(self) -> tuple[Tensor, Tensor]:
        """Scaled Wk^T Wq and Wk^T bq of each head: (heads * D, D) and (heads * D)."""
        query, key, _ = rearrange(self.qkv.weight, "(k h o) d -> k h o d", k=3, h=self.heads)
        bias, _, _ = rearrange(self.qkv.bias, "(k h o) -> k h o 1", k=3, h=self.heads)
        key = key.transpose(1, 2) * key.shape[-1] ** -0.5
        product, shift = torch.bmm(key, query), torch.bmm(key, bias)
        return rearrange(product, "h k q -> (h k) q"), rearrange(shift, "h k 1 -> (h k)")

    def _value_output(self) -> tuple[Tensor, Tensor]:
        """Wo Wv of each head, and what is added behind it: (D, heads * D) and (D)."""
        *_, value = rearrange(self.qkv.weight, "(k h d) i -> k h d i", k=3, h=self.heads)
        *_, bias = rearrange(self.qkv.bias, "(k d) -> k d", k=3)
        output = rearrange(self.project.weight, "o (h d) -> h o d", h=self.heads)
        product = rearrange(torch.bmm(output, value), "h o i -> o (h i)")
        return product, self.project(bias)


def _few_on_a_cpu(tokens: Tensor) -> bool:
    """Whether to regroup. FX tracing, which has no shapes, computes as in evaluation."""
    if isinstance(tokens, fx.Proxy):
        return False
    return tokens.device.type == "cpu" and tokens.shape[1] <= MOST_TOKENS_WRITTEN_OUT
