import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from offramp.backbones.zoo import architecture
from offramp.branches import ConvBranch, SLViT
from offramp.compute import FlopCounter, count_flops
from offramp.errors import PlanError
from offramp.spec import FeatureShape

IMAGE = torch.zeros(1, 6, 11, 9)


class Calls(nn.Module):
    """A module around a function, so that one line of maths can be counted."""

    def __init__(self, function: object, *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, *inputs: Tensor) -> object:
        assert callable(self.function)
        return self.function(*self.parts, *inputs)


@pytest.mark.parametrize(
    ("layer", "flops", "paper"),
    [
        (nn.Conv2d(6, 10, 3), 2 * 9 * 7 * 10 * 6 * 9, 9 * 7 * 10),
        (nn.Conv2d(6, 10, 3, bias=False), 2 * 9 * 7 * 10 * 6 * 9, 0),
        (nn.Conv2d(6, 10, 3, padding="same"), 2 * 11 * 9 * 10 * 6 * 9, 11 * 9 * 10),
        (nn.Conv2d(6, 10, 3, stride=2, dilation=2), 2 * 4 * 3 * 10 * 6 * 9, 4 * 3 * 10),
        (nn.Conv2d(6, 6, 3, groups=6), 2 * 9 * 7 * 6 * 9, 9 * 7 * 6),
        (nn.Conv2d(6, 4, 1, groups=2), 2 * 11 * 9 * 4 * 3, 11 * 9 * 4),
        (nn.ConvTranspose2d(6, 10, 3, stride=2), 2 * 11 * 9 * 6 * 10 * 9, 23 * 19 * 10),
        (nn.ConvTranspose2d(6, 4, 3, groups=2, bias=False), 2 * 11 * 9 * 6 * 2 * 9, 0),
        (nn.Linear(9, 5), 2 * 6 * 11 * 9 * 5, 6 * 11 * 5),
        (nn.Linear(9, 5, bias=False), 2 * 6 * 11 * 9 * 5, 0),
        (nn.MaxPool2d(2), 0, 4 * 6 * 5 * 4),
        (nn.MaxPool2d((2, 3), return_indices=True), 0, 6 * 6 * 5 * 3),
        (nn.AvgPool2d(3, stride=1), 0, 9 * 6 * 9 * 7),
        (nn.AdaptiveAvgPool2d(1), 0, 0),
        (nn.AdaptiveAvgPool2d((3, 2)), 0, 0),
        (nn.BatchNorm2d(6), 0, 0),
        (nn.ReLU(inplace=True), 0, 0),
        (nn.GELU(), 0, 0),
    ],
    ids=str,
)
def test_a_layer_costs_what_its_formula_says(layer: nn.Module, flops: int, paper: int) -> None:
    assert count_flops(layer, (IMAGE,)) == flops
    assert count_flops(layer, (IMAGE,), "paper") == flops + paper


A, B, V = torch.zeros(3, 7, 5), torch.zeros(3, 5, 2), torch.zeros(5)


@pytest.mark.parametrize(
    ("function", "inputs", "flops"),
    [
        (torch.bmm, (A, B), 2 * 3 * 7 * 5 * 2),
        (torch.matmul, (A, B), 2 * 3 * 7 * 5 * 2),
        (torch.matmul, (A, B[0]), 2 * 3 * 7 * 5 * 2),
        (torch.mm, (A[0], B[0]), 2 * 7 * 5 * 2),
        (torch.mv, (A[0], V), 2 * 7 * 5),
        (torch.dot, (V, V), 2 * 5),
        (torch.addmm, (torch.zeros(2), A[0], B[0]), 2 * 7 * 5 * 2),
        (torch.addmv, (torch.zeros(7), A[0], V), 2 * 7 * 5),
        (torch.baddbmm, (torch.zeros(3, 7, 2), A, B), 2 * 3 * 7 * 5 * 2),
        (torch.addbmm, (torch.zeros(7, 2), A, B), 2 * 3 * 7 * 5 * 2),
        (lambda a, b: torch.einsum("bij,bjk->bik", a, b), (A, B), 2 * 3 * 7 * 5 * 2),
        (lambda a, b: a + b.sum(), (A, B), 0),
    ],
)
def test_a_product_costs_two_flops_per_multiply_add(
    function: object, inputs: tuple[Tensor, ...], flops: int
) -> None:
    assert count_flops(Calls(function), inputs) == flops


def test_a_multiplication_costs_one_flop_per_element_in_the_papers_count() -> None:
    gamma = torch.zeros(1, 6, 1, 1)
    assert count_flops(Calls(torch.mul), (IMAGE, gamma), "paper") == IMAGE.numel()
    assert count_flops(Calls(lambda x: 2 * x), (IMAGE,), "paper") == IMAGE.numel()
    assert count_flops(Calls(torch.mul), (IMAGE, gamma)) == 0


def test_the_paper_sees_no_einsum() -> None:
    product = Calls(lambda a, b: torch.einsum("bij,bjk->bik", a, b))
    assert count_flops(product, (A, B), "paper") == 0


def test_a_module_called_twice_costs_twice() -> None:
    once, twice = Calls(lambda c, x: c(x), conv()), Calls(lambda c, x: c(x) + c(x), conv())
    assert count_flops(twice, (IMAGE,)) == 2 * count_flops(once, (IMAGE,))


def conv() -> nn.Module:
    return nn.Conv2d(6, 10, 3)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value)


QUERY, KEY, VALUE = torch.zeros(2, 3, 7, 5), torch.zeros(2, 3, 11, 5), torch.zeros(2, 3, 11, 8)
ATTENTION = 2 * (2 * 3) * 7 * 11 * (5 + 8)


def test_fused_attention_costs_its_two_products() -> None:
    assert count_flops(Calls(attend), (QUERY, KEY, VALUE)) == ATTENTION


def test_of_attention_the_paper_sees_softmax_and_scaling_only() -> None:
    expected = 5 * (2 * 3) * 7 * 11 + QUERY.numel()
    assert count_flops(Calls(attend), (QUERY, KEY, VALUE), "paper") == expected
    assert count_flops(nn.Softmax(dim=-1), (QUERY,), "paper") == 5 * QUERY.numel()


@pytest.mark.parametrize("backend", ["MATH", "FLASH_ATTENTION"])
@pytest.mark.parametrize("real", [False, True])
def test_every_kernel_of_attention_costs_the_same(backend: str, real: bool) -> None:
    kernel = getattr(SDPBackend, backend)
    value = KEY if backend == "FLASH_ATTENTION" else VALUE  # flash wants one head size
    expected = 2 * (2 * 3) * 7 * 11 * (5 + value.shape[-1])
    with sdpa_kernel(kernel):
        if real:
            with torch.no_grad(), FlopCounter() as counter:
                attend(QUERY, KEY, value)
            assert counter.total == expected
        else:
            assert count_flops(Calls(attend), (QUERY, KEY, value)) == expected


@pytest.mark.parametrize("training", [False, True])
def test_torchs_own_attention_layer_costs_projections_and_products(training: bool) -> None:
    layer = nn.MultiheadAttention(12, 3, batch_first=True).train(training).requires_grad_(False)
    tokens = torch.zeros(1, 7, 12)
    expected = 2 * 7 * 12 * 48 + 2 * 2 * 7 * 7 * 12
    assert count_flops(layer, (tokens,) * 3) == expected
    softmax_and_scaling = 5 * 3 * 7 * 7 + 7 * 12
    assert count_flops(layer, (tokens,) * 3, "paper") == softmax_and_scaling
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_paper_misses_the_products_of_an_slvits_attention() -> None:
    features = FeatureShape(7, 6, 4)
    branch = SLViT(patch=2, dim=5, heads=3, hidden=13).build(features, 11)
    tokens, attention = 6, 2 * 6 * (5 * 45 + 15 * 5) + 2 * 3 * 6 * 6 * (5 + 5)
    products = 2 * tokens * (28 * 5 + 2 * 5 * 10) + 2 * (30 * 13 + 13 * 13 + 13 * 11)
    biases = tokens * (5 + 10 + 5) + 13 + 13 + 11
    softmax_and_scaling = 5 * 3 * 6 * 6 + 6 * 15
    image = (torch.zeros(1, 7, 6, 4),)
    assert count_flops(branch, image) == products + attention
    assert count_flops(branch, image, "paper") == products + biases + softmax_and_scaling


def test_on_a_plain_cnn_it_is_torchs_own_count() -> None:
    branch = ConvBranch(layers=2).build(FeatureShape(6, 11, 9), 5).eval()
    with FlopCounterMode(display=False) as theirs:
        branch(IMAGE)
    assert count_flops(branch, (IMAGE,)) == theirs.get_total_flops()


def test_on_an_slvit_it_is_torchs_count_and_the_fused_attention_that_older_torch_misses() -> None:
    branch = SLViT(patch=1, dim=5, heads=3).build(FeatureShape(6, 11, 9), 5).eval()
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        branch(IMAGE)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    missed = 0 if kernel in flop_registry else 2 * 3 * 99 * 99 * (5 + 5)
    assert count_flops(branch, (IMAGE,)) == theirs.get_total_flops() + missed


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision:resnet18", 64),
        ("torchvision:mobilenet_v3_small", 64),
        ("torchvision:shufflenet_v2_x0_5", 64),
        ("timm:test_convnext", 64),
        ("timm:test_efficientnet_gn", 64),
        ("timm:test_vit", 160),
        ("timm:test_byobnet", 64),
    ],
)
def test_whole_networks_cost_what_torch_counts(name: str, size: int) -> None:
    model, images = architecture(name), torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as theirs, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(images)
    assert count_flops(model, (images,)) == theirs.get_total_flops()


RECURRENT = [
    nn.LSTM(6, 4, num_layers=2, bidirectional=True),
    nn.LSTM(6, 4, proj_size=3, batch_first=True),
    nn.GRU(6, 4, num_layers=2),
    nn.RNN(6, 4),
    nn.RNN(6, 4, nonlinearity="relu", bias=False),
]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("layer", RECURRENT, ids=str)
def test_a_recurrent_layer_meets_every_weight_at_every_step(layer: nn.Module) -> None:
    steps = torch.zeros(5, 2, 6)
    expected = 2 * 5 * 2 * sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    assert count_flops(layer, (steps,)) == expected
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode(), FlopCounter() as counter:
            layer(steps)
        assert counter.total == expected
    on_meta, nothing = copy.deepcopy(layer).to("meta"), steps.to("meta")
    with FlopCounterMode(display=False) as theirs:
        on_meta(nothing)
    assert count_flops(on_meta, (nothing,)) == theirs.get_total_flops() == expected


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU])
def test_sequences_of_several_lengths_cost_their_steps(make: type[nn.LSTM | nn.GRU]) -> None:
    layer = make(6, 4)
    packed = nn.utils.rnn.pack_sequence([torch.zeros(5, 6), torch.zeros(3, 6)])
    with torch.inference_mode(), FlopCounter() as counter:
        layer(packed)
    assert counter.total == 2 * 8 * sum(p.numel() for p in layer.parameters() if p.ndim == 2)


class Holds(nn.Module):
    """Tensors that are neither parameters nor buffers, one of them made by a calculation."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(9, 9)
        self.plain = torch.ones(9, 5)
        self.listed = [torch.ones(5), {"deep": torch.ones(5)}]
        self.made = self.dense.weight * 2
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.cache["last"] = x
        shift, scale = self.listed
        assert isinstance(scale, dict)
        result: Tensor = (self.dense(x) @ self.made) @ self.plain * scale["deep"] + shift
        return result


def test_a_module_may_hold_plain_tensors() -> None:
    model = Holds()
    assert count_flops(model, (IMAGE,)) == 2 * 6 * 11 * (81 + 81 + 45)
    assert model.cache == {}
    with torch.no_grad():
        model(IMAGE)
    assert count_flops(model, (IMAGE,)) == 2 * 6 * 11 * (81 + 81 + 45)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_under_an_old_style_norm_can_be_counted(norm: Callable[..., nn.Module]) -> None:
    layer = norm(nn.Linear(9, 5))
    power_iteration = 2 * (9 * 5 + 5) if norm is nn.utils.spectral_norm else 0
    assert count_flops(layer, (IMAGE,)) == 2 * 6 * 11 * 9 * 5 + power_iteration


def test_a_module_that_looks_at_values_is_counted_on_zeros() -> None:
    looks = Calls(lambda c, x: c(x * 2) if x.sum().item() > 3 else c(c(x)), nn.Linear(9, 9))
    assert count_flops(looks, (IMAGE + 1,)) == 2 * 2 * 6 * 11 * 81
    with pytest.raises(RuntimeError):  # on meta there are no values to see
        count_flops(looks.to("meta"), (IMAGE,))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_int8_layers_cost_what_they_replace() -> None:
    quantization: Any = torch.ao.quantization
    dense = quantization.quantize_dynamic(nn.Sequential(nn.Linear(9, 5), nn.ReLU()))
    assert count_flops(dense, (IMAGE,)) == 2 * 6 * 11 * 9 * 5
    layers = nn.Conv2d(6, 10, 3, groups=2), nn.ReLU()
    network: Any = nn.Sequential(quantization.QuantStub(), *layers, quantization.DeQuantStub())
    network.qconfig = quantization.default_qconfig
    prepared = quantization.prepare(network.eval())
    prepared(IMAGE)
    assert count_flops(quantization.convert(prepared), (IMAGE,)) == 2 * 9 * 7 * 10 * 3 * 9


def test_nothing_of_a_user_model_changes() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(10), nn.Dropout(), Remembers())
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    count_flops(model, (IMAGE,))
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert not model[3].seen
    assert not model[0]._forward_hooks


class Remembers(nn.Module):
    """Keeps what it sees, as caches do."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs)
        return inputs


def test_a_model_in_training_mode_is_counted_in_evaluation_mode() -> None:
    one_cell = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1))
    assert count_flops(one_cell.train(), (IMAGE,)) == 2 * 6 * 4


def test_a_model_too_large_for_memory_is_counted_all_the_same() -> None:
    with torch.device("meta"):
        layer = nn.Linear(2_000_000, 1_000_000)
    assert count_flops(layer, (torch.empty(1, 2_000_000, device="meta"),)) == 4 * 10**12


def test_inputs_may_be_elsewhere_than_the_model() -> None:
    with torch.device("meta"):
        layer = conv()
    assert count_flops(layer, (IMAGE,)) == count_flops(conv(), (IMAGE,))


def test_inputs_may_be_nested_and_a_traced_graph_counts_like_its_model() -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(
            self, live: tuple[Tensor, Tensor]
        ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            return (self.conv(live[0]), live[1]), (live[1],)

    live = ((IMAGE, IMAGE),)
    expected = count_flops(conv(), (IMAGE,))
    assert count_flops(Stage(), live) == expected
    assert count_flops(fx.symbolic_trace(Stage()), live) == expected


def test_a_model_that_makes_its_own_tensors_is_counted() -> None:
    grid = Calls(lambda c, x: c(x + torch.ones(6, 1, 1) * torch.arange(9)), conv())
    assert count_flops(grid, (IMAGE,)) == count_flops(conv(), (IMAGE,))


def test_half_precision_costs_the_same() -> None:
    assert count_flops(conv().half(), (IMAGE.half(),)) == count_flops(conv(), (IMAGE,))


def test_a_counter_can_be_read_between_the_nodes_of_a_graph() -> None:
    graph = fx.symbolic_trace(nn.Sequential(conv(), nn.ReLU(), nn.Conv2d(10, 3, 1)))
    marks = []

    class Survey(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            out = super().run_node(n)
            marks.append(counter.total)
            return out

    with torch.no_grad(), FlopCounter() as counter:
        Survey(graph).run(IMAGE)
    first, last = 2 * 9 * 7 * 10 * 6 * 9, 2 * 9 * 7 * 10 * 3
    assert marks == [0, first, first, first + last, first + last]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_counter_counts_the_same_with_and_without_gradients(mode: type) -> None:
    branch = SLViT(patch=2, dim=5, heads=3).build(FeatureShape(6, 4, 4), 11).eval()
    features = torch.zeros(1, 6, 4, 4)
    for convention in ("2mac", "paper"):
        with mode(), FlopCounter(convention) as counter:
            branch(features)
        assert counter.total == count_flops(branch, (features,), convention)


def test_a_counter_removes_its_hooks_even_after_an_error() -> None:
    def fail(inputs: Tensor) -> None:
        raise RuntimeError("on purpose")

    counter = FlopCounter("paper")
    with pytest.raises(RuntimeError, match="on purpose"), counter:
        Calls(fail)(IMAGE)
    before = counter.total
    conv()(IMAGE)
    assert counter.total == before
    with counter:
        conv()(IMAGE)
    assert counter.total == count_flops(conv(), (IMAGE,), "paper")


def test_an_unknown_convention_is_refused_with_those_there_are() -> None:
    with pytest.raises(PlanError, match=r"2mac, paper, not '2macs'; did you mean '2mac'\?"):
        count_flops(conv(), (IMAGE,), "2macs")  # type: ignore[arg-type]


def test_counting_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count_flops(SLViT(patch=1).build(FeatureShape(3, 2, 2), 2), (torch.zeros(1, 3, 2, 2),))
