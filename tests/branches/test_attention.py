import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.func import functional_call, vmap

from offramp.branches.attention import MOST_TOKENS_WRITTEN_OUT, Attention

DIM, HEADS = 5, 3


def attention(dim: int = DIM, heads: int = HEADS) -> Attention:
    """With biases that are not zero."""
    return Attention(dim, heads).double()


def gradients(module: Attention, tokens: Tensor) -> list[Tensor]:
    """Answer, then gradients of the tokens and all parameters for a fixed pull on the answer."""
    tokens = tokens.clone().requires_grad_()
    answer = module(tokens)
    pull = torch.linspace(-1, 1, answer.numel(), dtype=answer.dtype).view_as(answer)
    return [answer, *torch.autograd.grad(answer, [tokens, *module.parameters()], pull)]


def written_out(module: Attention, tokens: Tensor) -> Tensor:
    """What attention is by definition."""
    batch, count, dim = tokens.shape
    query, key, value = (
        part.reshape(batch, count, HEADS, dim).transpose(1, 2)
        for part in module.qkv(tokens).split(HEADS * dim, dim=-1)
    )
    weights = torch.softmax(query @ key.transpose(-1, -2) / dim**0.5, dim=-1)
    read = (weights @ value).transpose(1, 2).reshape(batch, count, HEADS * dim)
    answer: Tensor = module.project(read)
    return answer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [7, MOST_TOKENS_WRITTEN_OUT + 1])
def test_attention_is_the_softmax_of_scaled_products(training: bool, count: int) -> None:
    module, tokens = attention().train(training), torch.randn(2, count, DIM).double()
    torch.testing.assert_close(module(tokens), written_out(module, tokens), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("dim", "heads", "count"),
    [(5, 3, 7), (8, 1, 1), (1, 4, 9), (3, 2, MOST_TOKENS_WRITTEN_OUT)],
)
def test_training_gives_the_answers_and_gradients_of_evaluation(
    dim: int, heads: int, count: int
) -> None:
    module, tokens = attention(dim, heads), torch.randn(2, count, dim).double()
    expected = gradients(copy.deepcopy(module).eval(), tokens)
    for ours, theirs in zip(gradients(module.train(), tokens), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_few_tokens_are_written_out_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fused = F.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        calls.append(query.shape[2])
        return fused(query, key, value)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    module, most = Attention(DIM, HEADS), MOST_TOKENS_WRITTEN_OUT
    for training, count in [(True, most), (True, most + 1), (False, 2)]:
        module.train(training)(torch.randn(1, count, DIM))
    assert calls == [most + 1, 2]


def test_a_trace_made_in_training_keeps_the_way_of_evaluation() -> None:
    module, tokens = attention(), torch.randn(2, 7, DIM).double()
    traced = fx.symbolic_trace(module.train())
    assert torch.equal(traced(tokens), module.eval()(tokens))


def test_one_batched_model_answers_as_several() -> None:
    modules, tokens = [attention() for _ in range(4)], torch.randn(2, 7, DIM).double()
    names = [name for name, _ in modules[0].named_parameters()]
    stacked = {name: torch.stack([m.get_parameter(name) for m in modules]) for name in names}
    answers = vmap(lambda weights: functional_call(modules[0], weights, (tokens,)))(stacked)
    expected = torch.stack([module(tokens) for module in modules])
    torch.testing.assert_close(answers, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_under_autocast_little_is_lost(training: bool) -> None:
    module, tokens = Attention(16, 4), torch.randn(3, 49, 16)
    exact = module.eval()(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = module.train(training)(tokens)
    assert (rounded - exact).norm() < 0.01 * exact.norm()
