"""Multi-head self-attention as Keras has it: every head is as wide as asked, whatever the sum."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, fx, nn

fx.wrap("rearrange")


class Attention(nn.Module):
    """Self-attention with `heads` heads of width `dim` each: (B, N, D) to (B, N, D).

    Query, key and value are one dense layer with the same weights as three. Keras'
    `MultiHeadAttention(num_heads=heads, key_dim=dim)`, which the paper's sizes call for.
    """

    einsum_in_keras = True
    """The TensorFlow profiler, and so the paper's FLOPs, miss the products made in here."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * heads * dim)
        self.project = nn.Linear(heads * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let every token read all tokens: (B, N, D) to (B, N, D)."""
        qkv = rearrange(self.qkv(tokens), "b n (k h d) -> k b h n d", k=3, h=self.heads)
        query, key, value = qkv  # (B, heads, N, D) each
        read = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.project(rearrange(read, "b h n d -> b n (h d)"))
        return output
