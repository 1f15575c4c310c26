"""The digest of a backbone against swaps of everything that decides its answer."""

import dataclasses
import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.backbones.zoo import build

IMAGES = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))


class Around(nn.Module):
    """A layer in the middle: (B, 4, 8, 8) to (B, anything)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(self.first(x)).flatten(1)
        return result


def digest(make: Callable[[], nn.Module], leaves: tuple[type, ...] = ()) -> str:
    torch.manual_seed(3)
    return cut(Around(make()), ["first"], IMAGES, leaves=leaves).weights_digest()


def filled(make: Callable[[], nn.Module]) -> nn.Module:
    """Weights by counting, so that a setting alone tells two layers apart."""
    layer = make()
    for tensor in layer.state_dict().values():
        tensor.copy_(torch.linspace(0.1, 0.9, tensor.numel()).view(tensor.shape))
    return layer


class Kept(nn.Module):
    """A user's own layer, kept whole."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        vars(self).update(settings)

    def forward(self, x: Tensor) -> Tensor:
        return x * 1


SETTINGS: list[tuple[Callable[..., nn.Module], dict[str, Any], dict[str, Any]]] = [
    (nn.Conv2d, {"in_channels": 4, "out_channels": 4, "kernel_size": 3}, {"stride": 2}),
    (nn.Conv2d, {"in_channels": 4, "out_channels": 4, "kernel_size": 3}, {"padding": 1}),
    (nn.Conv2d, {"in_channels": 4, "out_channels": 4, "kernel_size": 3}, {"dilation": 2}),
    (
        nn.Conv2d,
        {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1},
        {"padding_mode": "reflect"},
    ),
    (nn.ConvTranspose2d, {"in_channels": 4, "out_channels": 4, "kernel_size": 3}, {"stride": 2}),
    (nn.BatchNorm2d, {"num_features": 4}, {"eps": 1e-3}),
    (nn.InstanceNorm2d, {"num_features": 4}, {"eps": 1e-3}),
    (nn.GroupNorm, {"num_groups": 2, "num_channels": 4}, {"num_groups": 4}),
    (nn.GroupNorm, {"num_groups": 2, "num_channels": 4}, {"eps": 1e-3}),
    (nn.LayerNorm, {"normalized_shape": (8, 8)}, {"eps": 1e-3}),
    (nn.LocalResponseNorm, {"size": 2}, {"alpha": 1e-3}),
    (nn.MaxPool2d, {"kernel_size": 2}, {"kernel_size": 3}),
    (nn.MaxPool2d, {"kernel_size": 3}, {"ceil_mode": True}),
    (nn.AvgPool2d, {"kernel_size": 2, "padding": 1}, {"count_include_pad": False}),
    (nn.AdaptiveAvgPool2d, {"output_size": 1}, {"output_size": 2}),
    (nn.AdaptiveMaxPool2d, {"output_size": 1}, {"output_size": 2}),
    (nn.LPPool2d, {"norm_type": 2, "kernel_size": 2}, {"norm_type": 3}),
    (nn.LeakyReLU, {}, {"negative_slope": 0.2}),
    (nn.ELU, {}, {"alpha": 0.5}),
    (nn.CELU, {}, {"alpha": 0.5}),
    (nn.GELU, {}, {"approximate": "tanh"}),
    (nn.Hardtanh, {}, {"max_val": 2.0}),
    (nn.Softplus, {}, {"beta": 2.0}),
    (nn.Softmax, {"dim": 1}, {"dim": 2}),
    (nn.Hardshrink, {}, {"lambd": 0.1}),
    (nn.Threshold, {"threshold": 0.1, "value": 0.0}, {"value": 1.0}),
    (nn.PReLU, {"num_parameters": 1}, {"num_parameters": 4}),
    (nn.Upsample, {"scale_factor": 2}, {"mode": "bilinear"}),
    (nn.PixelShuffle, {"upscale_factor": 2}, {"upscale_factor": 1}),
    (nn.ZeroPad2d, {"padding": 1}, {"padding": 2}),
    (nn.ConstantPad2d, {"padding": 1, "value": 0.0}, {"value": 1.0}),
    (nn.Flatten, {"start_dim": 1}, {"start_dim": 2}),
    (nn.Linear, {"in_features": 8, "out_features": 3}, {"bias": False}),
    (Kept, {"scale": 0.5}, {"scale": 0.25}),
    (Kept, {"_scale": 0.5}, {"_scale": 0.25}),
    (Kept, {"act": torch.relu}, {"act": torch.sigmoid}),
    (Kept, {"sizes": [1, {"a": 2}]}, {"sizes": [1, {"a": 3}]}),
    (Kept, {"table": torch.zeros(2)}, {"table": torch.ones(2)}),
    (Kept, {"tables": [torch.zeros(2)]}, {"tables": [torch.ones(2)]}),
]


@pytest.mark.parametrize(("kind", "settings", "swap"), SETTINGS)
def test_a_swapped_setting_gives_another_digest_and_the_same_one_does_not(
    kind: Callable[..., nn.Module], settings: dict[str, Any], swap: dict[str, Any]
) -> None:
    first, again, other = (
        digest(partial(filled, partial(kind, **given)), (Kept,))
        for given in (settings, settings, settings | swap)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (nn.ReLU, nn.SiLU),
        (nn.ReLU, nn.ReLU6),
        (lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2)),
        (lambda: nn.BatchNorm2d(4), lambda: nn.InstanceNorm2d(4, True, True)),
    ],
)
def test_layers_of_another_class_give_another_digest(
    one: Callable[[], nn.Module], two: Callable[[], nn.Module]
) -> None:
    assert digest(one) != digest(two)


def test_where_a_layer_writes_decides_nothing() -> None:
    assert digest(nn.ReLU) == digest(lambda: nn.ReLU(inplace=True))


class Holds(nn.Module):
    """Reads a plain tensor, a buffer that is not saved, and a constant."""

    buffer: Tensor

    def __init__(self, plain: float = 1, buffer: float = 2, constant: float = 3) -> None:
        super().__init__()
        self.plain = torch.tensor(plain)
        self.register_buffer("buffer", torch.tensor(buffer), persistent=False)
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return x * self.plain + self.buffer * self.constant


@pytest.mark.parametrize("what", ["plain", "buffer", "constant"])
def test_everything_that_a_traced_module_reads_counts(what: str) -> None:
    assert digest(Holds) != digest(lambda: Holds(**{what: 7.0}))


def with_hook(hook: Callable[..., Any]) -> nn.Module:
    layer = nn.ReLU()
    layer.register_forward_hook(hook)
    return layer


def once(module: nn.Module, args: Any, answer: Tensor) -> Tensor:
    return answer + 1


def thrice(module: nn.Module, args: Any, answer: Tensor) -> Tensor:
    return answer + 3


def test_hooks_of_a_layer_count() -> None:
    digests = {digest(nn.ReLU), digest(lambda: with_hook(once)), digest(lambda: with_hook(thrice))}
    assert len(digests) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_packed_weights_of_int8_layers_count() -> None:
    def packed(value: float) -> nn.Module:
        layer: Any = torch.ao.nn.quantized.dynamic.Linear(8, 3)  # type: ignore[no-untyped-call]
        weight = torch.quantize_per_tensor(torch.full((3, 8), value), 0.1, 0, torch.qint8)
        layer.set_weight_bias(weight, torch.zeros(3))
        return layer  # type: ignore[no-any-return]

    assert digest(lambda: packed(0.3)) == digest(lambda: packed(0.3))
    assert digest(lambda: packed(0.3)) != digest(lambda: packed(0.5))


@pytest.mark.slow
def test_two_processes_give_the_same_digest() -> None:
    name = "torchvision:squeezenet1_1"
    code = (
        "import torch; from offramp.backbones.zoo import build; "
        "from offramp.backbones.staged import cut; torch.manual_seed(5); "
        f"print(cut(build('{name}'), ['features.4'], torch.zeros(1, 3, 64, 64)).weights_digest())"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    torch.manual_seed(5)
    here = cut(build(name), ["features.3"], torch.randn(2, 3, 64, 64)).weights_digest()
    assert run.stdout.strip() == here


def scaled(k: float) -> nn.Module:
    return with_hook(lambda module, args, answer: answer * k)


def replaced(k: float) -> nn.Module:
    layer = nn.BatchNorm2d(4)
    old = layer.forward
    layer.forward = lambda x: old(x) * k  # type: ignore[method-assign, assignment]
    return layer


def encoder(k: float) -> nn.Module:
    inner = nn.TransformerEncoderLayer(
        8, 2, 8, activation=lambda x: torch.relu(x) * k, batch_first=True
    )
    return nn.Sequential(nn.Flatten(1, 2), inner.eval())


def times(x: Tensor, k: float = 1) -> Tensor:
    return x * k


@dataclasses.dataclass
class Config:
    scale: float


class Plain:
    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.again = self
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Plain":
        return Plain(self.scale)


HELD: dict[str, Callable[[float], nn.Module]] = {
    "what a hook closes over": scaled,
    "a replaced forward": replaced,
    "an activation": encoder,
    "an array": lambda k: Kept(table=np.full((2, 3), k)),
    "an array of objects": lambda k: Kept(table=np.array([k, "a"], dtype=object)),
    "a namespace": lambda k: Kept(config=SimpleNamespace(scale=SimpleNamespace(k=k))),
    "a data class": lambda k: Kept(config=[Config(k)]),
    "an object that holds itself": lambda k: Kept(config=Plain(k)),
    "a partial": lambda k: Kept(act=functools.partial(times, k=k)),
    "a default": lambda k: Kept(act=lambda x, k=k: x * k),
    "a tensor in a namespace": lambda k: Kept(config=SimpleNamespace(scale=torch.tensor(k))),
    "a module in a function": lambda k: Kept(act=filled_with(k).forward),
}


def filled_with(k: float) -> nn.Module:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, k)
    nn.init.constant_(layer.bias, 0)
    return layer


@pytest.mark.parametrize("name", HELD)
def test_contents_of_functions_and_objects_of_a_layer_count(name: str) -> None:
    first, again, other = (digest(partial(HELD[name], k), (Kept,)) for k in (2.0, 2.0, 3.0))
    assert first == again
    assert first != other


def test_functions_of_one_name_count_by_their_code() -> None:
    first = digest(lambda: Kept(act=lambda x: x + 1), (Kept,))
    assert first == digest(lambda: Kept(act=lambda x: x + 1), (Kept,))
    assert first != digest(lambda: Kept(act=lambda x: x - 1), (Kept,))


def test_global_values_that_a_function_reads_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FACTOR", 2)
    first = digest(lambda: with_hook(lambda module, args, answer: answer * FACTOR))
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert first != digest(lambda: with_hook(lambda module, args, answer: answer * FACTOR))


FACTOR = 1

HELD_ELSEWHERE = """
import sys
sys.path.insert(0, {folder!r})
from test_fingerprint import HELD, Kept, digest
from functools import partial
for name in HELD:
    print(digest(partial(HELD[name], 2.0), (Kept,)))
"""


@pytest.mark.slow
def test_another_process_spells_the_content_of_layers_in_the_same_way() -> None:
    code = HELD_ELSEWHERE.format(folder=str(Path(__file__).parent))
    one, two = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    )
    assert one == two
    assert len(set(one)) == len(HELD)
