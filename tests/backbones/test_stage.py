import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone, cut


def backbone() -> StagedBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)
        )
        return cut(model, ["1"], images())


def images() -> Tensor:
    return torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(3))


def test_train_on_the_stages_leaves_the_backbone_as_it_was() -> None:
    staged = backbone()
    before, digest = staged(images()), staged.weights_digest()
    staged.stages.train()
    staged.stages[0].train()
    after = staged(images())
    assert torch.equal(after, before)
    assert staged.weights_digest() == digest
    assert not any(module.training for stage in staged.stages for module in stage.modules())


def test_no_part_of_a_new_backbone_is_in_training_mode() -> None:
    assert not any(module.training for module in backbone().modules())


def test_a_stage_never_requires_gradients() -> None:
    staged = backbone()
    staged.stages[0].requires_grad_()
    assert not any(weight.requires_grad for weight in staged.parameters())


def test_a_module_around_the_backbone_cannot_train_its_weights() -> None:
    staged = backbone()
    model = nn.Sequential(staged, nn.Flatten(), nn.Linear(4 * 5 * 3, 3))
    model.train().requires_grad_()
    digest = staged.weights_digest()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(images()).sum().backward()
    optimizer.step()
    assert staged.weights_digest() == digest
    assert all(weight.grad is None for weight in staged.parameters())
    assert all(weight.grad is not None for weight in model[2].parameters())


def test_a_gradient_still_passes_through_the_stages_to_their_input() -> None:
    given = images().requires_grad_()
    backbone()(given).sum().backward()
    assert given.grad is not None
    assert given.grad.abs().sum() > 0
