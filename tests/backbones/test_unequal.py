"""Small models of the kinds that public reports show: each cuts bit-equal, or says why not."""

import copy
import functools
import threading
import warnings
from collections.abc import Callable
from types import MethodType
from typing import Any

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Reduce
from torch import Tensor, nn

from offramp.backbones.places import list_places
from offramp.backbones.staged import cut
from offramp.errors import CutError, ShapeError

IMAGES = torch.randn(2, 3, 11, 7, generator=torch.Generator().manual_seed(1))
OTHERS = torch.randn(3, 3, 11, 7, generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    """Two convolutions and a norm; subclasses change one thing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 5, 1)
        nn.init.normal_(self.bn.running_mean)  # type: ignore[arg-type]
        self.eval()

    def middle(self, x: Tensor) -> Any:
        return x

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.first(x)).relu()
        answer: Tensor = self.last(self.middle(y)).mean((2, 3))
        return answer


def net(middle: Callable[..., Any], **attributes: Any) -> Net:
    """A Net with this in the middle, and these attributes."""
    made = type("Made", (Net,), {"middle": middle})()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made.eval()  # type: ignore[no-any-return]


def hooked(where: str, kind: str) -> nn.Module:
    model = Net()
    module = model.get_submodule(where)
    if kind == "pre":
        module.register_forward_pre_hook(lambda module, args: (args[0] * 1.5,))
    else:
        module.register_forward_hook(lambda module, args, answer: answer * 2 + 1)
    return model


def replaced(how: str) -> Any:
    model: Any = Net()
    old = model.forward

    def twice(self: Any, x: Tensor) -> Any:
        return old(x) * 2

    def with_model(inner: Any, x: Tensor) -> Any:
        return inner.last(inner.first(x) * 3).mean((2, 3))

    model.forward = {
        "closure": lambda x: old(x) * 2,
        "partial": functools.partial(with_model, model),
        "bound": MethodType(twice, model),
    }[how]
    return model


class Called(Net):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * 2  # type: ignore[no-any-return]


def norm_replaced() -> Any:
    model: Any = Net()
    old = model.bn.forward
    model.bn.forward = lambda x: old(x) * 2
    return model


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        answer: Tensor = self.inner(*args, **kwargs)
        return answer


class KeywordOnly(Net):
    def forward(self, x: Tensor, *, scale: float = 0.5) -> Tensor:
        return super().forward(x) * scale


def scripted(made_from: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        return torch.jit.script(made_from)


def _gated(x: Tensor) -> Tensor:
    return x * x.sigmoid()


gated = scripted(_gated)


def padded(self: Net, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x + torch.cat([x[:, :2], torch.zeros(b, c - 2, h, w)], 1)


def fills_a_buffer(self: Any, x: Tensor) -> Any:
    if self.table is None or self.table.shape[-1] != x.shape[-1]:
        self.table = torch.linspace(0, 1, x.shape[-1])
    return x + self.table


def locked(self: Any, x: Tensor) -> Tensor:
    with self.lock:
        return x * 2


def keeps(self: Any, x: Tensor) -> Tensor:
    self.kept = x.mean()
    return x


@torch.fx.wrap
def shifted(x: Tensor, sizes: list[int]) -> Tensor:
    sizes[0] = min(sizes[0], 2)
    return x.roll(sizes[0], 2)


class Packs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, int]]:
        return x, (x * 2, 3)


class Unpacks(nn.Module):
    def forward(self, pack: tuple[Tensor, tuple[Tensor, int]]) -> Tensor:
        return pack[0] + pack[1][0] * pack[1][1]


class PassesAPack(Net):
    def __init__(self) -> None:
        super().__init__()
        self.packs, self.mid, self.unpacks = Packs(), nn.Conv2d(4, 4, 1), Unpacks()

    def middle(self, x: Tensor) -> Tensor:
        pack = self.packs(x)
        joined: Tensor = self.mid(pack[0]) + self.unpacks(pack)
        return joined


class PassesSizes(Net):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.mid = Tokens(), nn.Linear(4, 4)

    def middle(self, x: Tensor) -> Tensor:
        tokens, (height, width) = self.tokens(x)
        joined: Tensor = self.mid(tokens).mT.reshape(-1, 4, height, width)
        return joined


class Tokens(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return x.flatten(2).mT, (x.shape[2], x.shape[3])


def test_a_nest_that_a_leaf_reads_whole_crosses_no_cut() -> None:
    leaves = [Packs, Unpacks]
    with pytest.raises(
        CutError, match=r"packs returns a tuple that holds more than tensors.*'mid'"
    ):
        cut(PassesAPack(), ["mid"], IMAGES, leaves=leaves)
    model = PassesAPack().requires_grad_(False)
    assert torch.equal(cut(model, ["bn"], IMAGES, leaves=leaves)(OTHERS), model(OTHERS))


def test_sizes_returned_with_a_tensor_cross_a_cut_if_they_are_traced() -> None:
    model = PassesSizes().requires_grad_(False)
    assert torch.equal(cut(model, ["mid"], IMAGES)(OTHERS), model(OTHERS))


def asserts(self: Net, x: Tensor) -> Tensor:
    assert x.shape[1] == 4, "four channels"
    assert x.shape[0] > 0
    return x


def by_height(self: Net, x: Tensor) -> Tensor:
    return x.flip(2) if x.shape[2] > 7 else x


def upsampled(self: Net, x: Tensor) -> Tensor:
    return F.interpolate(x, size=(int(x.shape[2] * 1.5), int(x.shape[3] * 1.5)))


def with_names(**parts: nn.Module) -> nn.Module:
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name.replace("_", "-") if "_" in name else name, part)
    return model.eval()


def weight_normed() -> nn.Module:
    model = Net()
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(model.last)
    return model


def spectral_normed() -> nn.Module:
    model = Net()
    nn.utils.spectral_norm(model.last)
    return model.eval()


def compiled_part() -> nn.Module:
    model = Net()
    model.last = torch.compile(model.last, backend="eager")  # type: ignore[assignment]
    return model


CUTS: dict[str, tuple[Callable[[], Any], str]] = {
    "plain": (Net, "first"),
    "hook on the root": (lambda: hooked("", "post"), "first"),
    "pre-hook on the root": (lambda: hooked("", "pre"), "first"),
    "hook on a leaf": (lambda: hooked("bn", "post"), "bn"),
    "pre-hook on a leaf": (lambda: hooked("last", "pre"), "bn"),
    "forward replaced by a closure": (lambda: replaced("closure"), "first"),
    "forward replaced by a partial": (lambda: replaced("partial"), "first"),
    "forward replaced by a bound method": (lambda: replaced("bound"), "first"),
    "__call__ overridden": (Called, "first"),
    "a leaf's forward replaced": (norm_replaced, "bn"),
    "DataParallel": (lambda: nn.DataParallel(Net()), "first"),
    "compiled": (lambda: torch.compile(Net(), backend="eager"), "first"),
    "a compiled part": (compiled_part, "first"),
    "a wrapper with *args and **kwargs": (lambda: Wrapper(Net()), "inner.first"),
    "a keyword-only argument": (KeywordOnly, "first"),
    "a scale of numpy": (lambda: net(lambda self, x: x * self.s, s=np.sqrt(0.5)), "first"),
    "a plain tensor": (lambda: net(lambda self, x: x * self.s, s=torch.tensor(0.3)), "first"),
    "a lock": (lambda: net(locked, lock=threading.Lock()), "first"),
    "a module of Python": (lambda: net(lambda self, x: self.math.relu(x), math=torch), "first"),
    "a buffer filled at the first call": (lambda: net(fills_a_buffer, table=None), "first"),
    "an attribute set in forward": (lambda: net(keeps), "first"),
    "a script function": (lambda: net(lambda self, x: gated(x)), "first"),
    "a list that is changed": (lambda: net(lambda self, x: shifted(x, [5, 1])), "first"),
    "a padded shortcut": (lambda: net(padded), "first"),
    "asserts on a shape": (lambda: net(asserts), "first"),
    "an if on a size": (lambda: net(by_height), "first"),
    "an int of a size": (lambda: net(upsampled), "first"),
    "einops by name": (
        lambda: net(lambda self, x: rearrange(x, "b c (h p) w -> b (c p) h w", p=1)),
        "first",
    ),
    "einops by its module": (
        lambda: net(lambda self, x: einops.repeat(x, "b c h w -> b (k c) h w", k=2)[:, 2:6]),
        "first",
    ),
    "a layer of einops": (
        lambda: nn.Sequential(Net().first, Reduce("b c h w -> b c", "max")).eval(),
        "0",
    ),
    "a starred shape": (
        lambda: net(lambda self, x: x.view(*x.shape[:2], -1).sort(2)[0].view(x.shape)),
        "first",
    ),
    "item of a parameter": (
        lambda: net(lambda self, x: x * self.gate.item(), gate=nn.Parameter(torch.tensor(0.3))),
        "first",
    ),
    "old weight norm": (weight_normed, "first"),
    "old spectral norm": (spectral_normed, "first"),
    "a submodule named class": (
        lambda: with_names(**{"class": nn.Conv2d(3, 4, 1), "last": nn.Flatten()}),
        "class",
    ),
    "a submodule with dashes": (
        lambda: with_names(a_b=nn.Conv2d(3, 4, 1), last=nn.Flatten()),
        "a-b",
    ),
    "a scripted part": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), scripted(nn.ReLU()), nn.Flatten()).eval(),
        "0",
    ),
    "one value per sample": (
        lambda: nn.Sequential(Net(), nn.Linear(5, 1), nn.Flatten(0)).eval(),
        "0",
    ),
    "bfloat16 inside": (
        lambda: net(
            lambda self, x: self.low(x.bfloat16()).float(), low=nn.Conv2d(4, 4, 1).bfloat16()
        ),
        "first",
    ),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_model_that_cuts_answers_bit_for_bit_and_stays_as_it_was(name: str) -> None:
    build, place = CUTS[name]
    model = build()
    for weight in model.parameters():
        weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    backbone = cut(model.train(), [place], IMAGES)
    backbone(IMAGES)  # were the user's own modules to run in it, their statistics would move
    model.eval()
    model.requires_grad_(False)
    for images in (IMAGES, OTHERS):
        with torch.no_grad():
            expected = model(images)
            assert torch.equal(backbone(images), expected)
    assert torch.equal(copy.deepcopy(backbone)(OTHERS), backbone(OTHERS))
    assert sum(backbone.stage_flops()) == list_places(model, IMAGES).total_flops > 0
    assert torch.equal(torch.get_rng_state(), random)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


class UnderAutocast(Net):
    @torch.autocast("cpu", dtype=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


def autocast_inside(self: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.last(x).float().repeat(1, 2, 1, 1)[:, :4]


def counts(self: Any, x: Tensor) -> Any:
    self.n += 1
    return x + self.n


def counts_a_little(self: Any, x: Tensor) -> Any:
    self.n += 1
    return x * (1 + self.n * 1e-6)


def counts_in_a_buffer(self: Any, x: Tensor) -> Any:
    self.seen += 1
    return x * self.seen


def with_buffer() -> nn.Module:
    model = net(counts_in_a_buffer)
    model.register_buffer("seen", torch.zeros(()))
    return model


GLOBAL: Any = Net()


def reads_a_global() -> nn.Module:
    def twice(x: Tensor) -> Tensor:
        return OLD_NORM(GLOBAL.bn, x) * 2

    GLOBAL.bn.forward = twice
    return GLOBAL  # type: ignore[no-any-return]


OLD_NORM = nn.BatchNorm2d.forward


def fixed_batch(self: Net, x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] == 2 else x


def checks_batch(self: Net, x: Tensor) -> Tensor:
    return x + 0 if x.shape[0] == 2 else x


class NeedsMore(Net):
    def forward(self, x: Tensor, *, scale: float) -> Tensor:  # type: ignore[override]
        return super().forward(x) * scale


def uninitialised() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten())


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "dropout always on": (lambda: net(lambda self, x: F.dropout(x, 0.5)), "random in evaluation"),
    "noise": (lambda: net(lambda self, x: x + torch.rand_like(x)), "random in evaluation"),
    "faint noise": (lambda: net(lambda self, x: x + 1e-7 * torch.rand_like(x)), "random in"),
    "a counter": (lambda: net(counts, n=0), r"depends on earlier calls \(n changed\)"),
    "a faint counter": (lambda: net(counts_a_little, n=0), r"earlier calls \(n changed\)"),
    "a counting buffer": (with_buffer, r"depends on earlier calls \(seen changed\)"),
    "batch statistics": (
        lambda: nn.Sequential(Net().first, nn.BatchNorm2d(4, track_running_stats=False)).eval(),
        "depends on the other samples.*track_running_stats",
    ),
    "a mean over the batch": (lambda: net(lambda self, x: x - x.mean(0)), "on the other samples"),
    "autocast around forward": (UnderAutocast, "under torch.autocast"),
    "autocast inside": (lambda: net(autocast_inside), "under torch.autocast"),
    "a forward that reads a global": (reads_a_global, r"bn\.forward was replaced.*'GLOBAL'"),
    "a batch size that decides": (lambda: net(fixed_batch), "depends on the other samples"),
    "a batch size that is checked": (
        lambda: net(checks_batch),
        "one batch size only.*depends on a size at.*gave True.*give False",
    ),
    "values that decide": (
        lambda: net(lambda self, x: x if x.sum() > 0 else -x),
        r"Made\.forward, at .*test_unequal.*module of its own",
    ),
    "an int of values": (
        lambda: net(lambda self, x: x * int(self.last.weight.sum())),
        "cannot trace",
    ),
    "a keyword-only argument without default": (NeedsMore, "needs a default"),
    "TorchScript": (lambda: scripted(nn.ReLU()), "TorchScript"),
    "a lazy module": (uninitialised, r"'0.weight' .* no shape yet.* Call model\(sample\) once"),
    "a state dict": (lambda: Net().state_dict(), "state dict: build the model"),
    "a class": (lambda: Net, "not the class Net. Call the class"),
    "nothing of the kind": (lambda: "resnet18", "not a str"),
    "one number for the batch": (lambda: nn.Sequential(Net(), Total()), "one number for the whole"),
}


class Total(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_whose_stages_could_not_equal_it_is_refused_with_the_cause(name: str) -> None:
    build, told = REFUSED[name]
    with pytest.raises(CutError, match=told):
        cut(build(), ["first"], IMAGES)


HIDDEN: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Sequential(Stirred(lambda x: F.dropout(x, 0.5)), Net()),
    "noise times the input": lambda: nn.Sequential(
        Stirred(lambda x: x * torch.rand_like(x)), Net()
    ),
}


class Stirred(nn.Module):
    def __init__(self, stir: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stir = stir

    def forward(self, x: Tensor) -> Tensor:
        return self.stir(x)


@pytest.mark.parametrize("name", HIDDEN)
def test_a_random_model_is_refused_on_a_sample_of_zeros_too(name: str) -> None:
    model = HIDDEN[name]().eval()
    stream = torch.get_rng_state()
    with pytest.raises(CutError, match="random in evaluation"):
        cut(model, ["1.first"], torch.zeros_like(IMAGES))
    assert torch.equal(torch.get_rng_state(), stream)


class Logs(nn.Module):
    """Takes no negative values."""

    def forward(self, x: Tensor) -> Tensor:
        torch._check_value(bool((x >= 0).all()))
        return x + 1


def test_a_model_that_refuses_normal_values_is_checked_on_its_sample_only() -> None:
    model = nn.Sequential(Logs(), Net()).eval()
    backbone = cut(model, ["1.first"], torch.zeros_like(IMAGES), leaves=[Logs])
    with torch.no_grad():
        assert torch.equal(backbone(IMAGES.abs()), model(IMAGES.abs()))


def test_a_size_that_decided_is_checked_when_the_stages_run() -> None:
    model = net(by_height)
    backbone = cut(model, ["first"], IMAGES)
    with pytest.raises(ShapeError, match=r"by_height|x\.shape\[2\] > 7.*gave True.*give False"):
        backbone(IMAGES[:, :, :5])
    tall = torch.cat([IMAGES, IMAGES], 2)
    with torch.no_grad():
        assert torch.equal(backbone(tall), model(tall))


def test_an_ambient_autocast_does_not_reach_the_cut() -> None:
    model = Net()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backbone = cut(model, ["first"], IMAGES)
    with torch.no_grad():
        assert torch.equal(backbone(IMAGES), model(IMAGES))


def test_weights_that_ask_for_gradients_may_move_the_last_bits_of_the_model_alone() -> None:
    model = net(lambda self, x: x + (x.flatten(2).mT @ self.w).mT.view_as(x), w=parameter(4, 4))
    backbone = cut(model, ["first"], IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(backbone(IMAGES), model(IMAGES), rtol=0, atol=1e-6)
        assert torch.equal(backbone(IMAGES), model.requires_grad_(False)(IMAGES))


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(3)))


def enlarges_rounding(self: Net, x: Tensor) -> Tensor:
    """Differ between batches of 2 and 3 by rounding alone, made large."""
    rows = x.shape[0]
    return x + 1e6 * (x / rows * rows - x)


def test_rounding_that_a_network_enlarges_is_not_taken_for_dependence_on_other_samples() -> None:
    model = net(enlarges_rounding)
    with torch.no_grad():
        assert torch.equal(cut(model, ["bn"], IMAGES)(IMAGES), model(IMAGES))
