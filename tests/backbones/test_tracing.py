from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import NodePathTracer

from offramp.backbones.frozen import frozen_copy
from offramp.backbones.staged import cut
from offramp.backbones.tracing import trace
from offramp.backbones.zoo import architecture
from offramp.errors import CutError


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.odd = nn.Sequential(Inner(), nn.ReLU())
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.odd(self.first(x)))
        return result


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:shufflenet_v2_x1_0"])
def test_nodes_are_named_as_torchvision_names_them(name: str) -> None:
    model = architecture(name)
    theirs = NodePathTracer()
    theirs.trace(model)
    ours = trace(model, [torch.zeros(1, 3, 32, 32)])
    assert list(ours.names.values()) == list(theirs.node_to_qualname.values())


def test_a_module_that_fx_cannot_trace_is_named_with_its_line_and_the_cure() -> None:
    torch.manual_seed(0)  # weights with which the sum has one sign for all samples
    with pytest.raises(CutError) as caught:
        cut(Outer(), ["first"], torch.zeros(1, 3, 6, 4))
    told = str(caught.value)
    assert "cannot trace odd.0 (Inner)" in told
    assert "test_tracing.py:" in told
    assert "`if x.sum() > 0:`" in told
    assert "leaves=[Inner]" in told


def test_a_module_kept_whole_by_leaves_is_run_as_it_is() -> None:
    model = Outer().eval()
    backbone = cut(model, ["odd"], torch.zeros(1, 3, 6, 4), leaves=[Inner])
    for sign in (1.0, -1.0):
        images = torch.full((2, 3, 5, 4), sign)
        torch.testing.assert_close(backbone(images), model(images), rtol=0, atol=0)


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        y = self.a(x) * scale
        if mask is not None:
            y = y * mask
        result: Tensor = self.b(y)
        return result


def test_arguments_past_the_sample_keep_their_defaults() -> None:
    model = Optional().eval()
    images, mask = torch.randn(2, 3, 6, 4), torch.randn(2, 4, 6, 4)
    torch.testing.assert_close(cut(model, ["a"], images)(images), model(images), rtol=0, atol=0)
    both = cut(model, ["a"], (images, mask))
    torch.testing.assert_close(both(images, mask), model(images, mask), rtol=0, atol=0)


def test_too_many_inputs_are_counted() -> None:
    images = torch.zeros(1, 3, 6, 4)
    with pytest.raises(CutError, match=r"forward takes \(x\), 1 of them required.* holds 2"):
        cut(Outer(), ["first"], (images, images))


@pytest.mark.parametrize("sample", [(), torch.tensor(1.0), (torch.zeros(1, 3), 4)])
def test_a_sample_that_is_not_a_batch_of_tensors_is_refused(sample: tuple[Tensor, ...]) -> None:
    with pytest.raises(CutError, match="tensor with a batch axis"):
        cut(Outer(), ["first"], sample)


class Pair(nn.Module):
    def __init__(self, as_dict: bool) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.as_dict = as_dict

    def forward(self, x: Tensor) -> object:
        y = self.a(x)
        return {"out": y} if self.as_dict else (y, y)


@pytest.mark.parametrize(("as_dict", "kind"), [(True, "dict"), (False, "tuple")])
def test_a_model_that_gives_more_than_one_tensor_is_refused(as_dict: bool, kind: str) -> None:
    with pytest.raises(CutError, match=f"returns a .*{kind}.*Wrap it"):
        cut(Pair(as_dict), ["a"], torch.zeros(1, 3, 6, 4))


class Counting(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        return y + self.seen.add_(y.mean())


def test_a_model_that_changes_its_own_buffer_is_refused() -> None:
    model = Counting()
    with pytest.raises(CutError, match=r"depends on earlier calls \(seen changed\)"):
        cut(model, ["a"], torch.ones(1, 3, 6, 4))
    assert model.seen == 0


def test_a_model_that_cannot_be_copied_is_refused_with_the_reason() -> None:
    model: Any = nn.Conv2d(3, 4, 1)
    model.kept = (step for step in range(3))
    with pytest.raises(CutError, match=r"Conv2d cannot be copied .*generator.*__deepcopy__"):
        frozen_copy(model)


def test_a_failure_in_torchvisions_own_code_names_its_line_and_not_torchs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), torchvision.transforms.RandomErasing(1.0))
    with pytest.raises(CutError) as caught:
        trace(net, [torch.zeros(1, 3, 6, 6)])
    assert "torchvision/transforms/transforms.py" in str(caught.value)
    assert "fx/proxy.py" not in str(caught.value)


def test_a_place_that_is_neither_a_name_nor_a_cut_is_refused() -> None:
    with pytest.raises(CutError, match="after holds 2; it takes names"):
        cut(nn.Conv2d(3, 4, 1), [2], torch.zeros(1, 3, 6, 4))  # type: ignore[list-item]
