from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone, cut


class Shared(nn.Module):
    """One in-place ReLU, called three times around a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 7, 3, padding=1)
        self.bn = nn.BatchNorm2d(7)
        self.relu = nn.ReLU(inplace=True)
        self.relu_new = nn.Conv2d(7, 5, 1)  # bears the name that a changed ReLU would get
        self.c2 = nn.Conv2d(7, 7, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn(self.c1(x)))
        z = self.c2(y)
        z += y
        result: Tensor = self.relu_new(self.relu(z)).mean((2, 3))
        return self.relu(result)  # type: ignore[no-any-return]


class ThroughAView(nn.Module):
    """Its second call changes `z` through a view, and what is read later relies on that."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 7, 3, padding=1)
        self.bn = nn.BatchNorm2d(7)
        self.relu = nn.ReLU(inplace=True)
        self.c2 = nn.Conv2d(7, 7, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.c2(self.relu(self.bn(self.c1(x))))
        flat = self.relu(z.flatten(1))
        answer: Tensor = z.mean((2, 3)) + flat.mean(1, keepdim=True)
        return answer


class Scaled(nn.Module):
    """An activation in place with a parameter and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.register_buffer("shift", torch.tensor(0.3))
        self.inplace = True

    def forward(self, x: Tensor) -> Tensor:
        shift = self.get_buffer("shift")
        return x.mul_(self.scale).add_(shift) if self.inplace else x * self.scale + shift


class WithScaled(nn.Module):
    """The activation above, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.act = Scaled()
        self.b = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.act(self.b(self.act(self.a(x)))).mean((2, 3))
        return answer


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 6, generator=torch.Generator().manual_seed(3))


def seeded(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return kind().eval()


def check(backbone: StagedBackbone, model: nn.Module) -> None:
    """The stages give the model's bits, and change nothing that an earlier one gave."""
    seen: list[tuple[Tensor, Tensor]] = []
    live: tuple[Tensor, ...] = (images(),)
    with torch.no_grad():
        for stage in backbone.stages:
            live, taps = stage(live)
            seen += [(tensor, tensor.clone()) for tensor in (*live, *taps)]
        assert torch.equal(live[0], model(images()))
    assert all(torch.equal(now, before) for now, before in seen)


@pytest.mark.parametrize("places", [["bn", "c2"], ["bn", "c2", "add"], ["c1", "bn", "c2", "mean"]])
def test_each_call_of_a_shared_module_is_made_out_of_place_alone(places: Sequence[str]) -> None:
    model = seeded(Shared)
    check(cut(model, places, images()), model)


def test_another_call_that_a_view_relies_on_stays_in_place() -> None:
    model = seeded(ThroughAView)
    backbone = cut(model, ["bn"], images())
    check(backbone, model)
    inplace = [m.inplace for m in backbone.modules() if isinstance(m, nn.ReLU)]
    assert sorted(inplace) == [False, True]


def test_a_changed_call_shares_its_parameters_and_buffers_also_after_a_move() -> None:
    model = seeded(WithScaled).to(torch.float64)
    leaves = [Scaled]
    inside = cut(model, ["a", "b"], images().double(), leaves=leaves)
    assert {p.data_ptr() for p in inside.parameters()} == {p.data_ptr() for p in model.parameters()}
    behind = cut(model, ["act_0"], images().double(), leaves=leaves)
    for backbone in (inside, behind):
        backbone.float()
    assert inside.weights_digest() == behind.weights_digest()
    assert sum(isinstance(module, Scaled) for module in inside.modules()) == 2
    check(inside, model.float())
