import pytest
import torch
from torch import fx

from offramp.branches import SLViT
from offramp.branches.attention import Attention
from offramp.branches.slvit import Encoder
from offramp.branches.tap import Standardise
from offramp.compute import count_params
from offramp.errors import PlanError, ShapeError
from offramp.spec import FeatureShape

MAP = FeatureShape(7, 6, 4)
SMALL = SLViT(patch=2, dim=5, heads=3, hidden=13)


def test_a_branch_answers_any_batch() -> None:
    branch = SMALL.build(MAP, 11)
    for batch in (1, 3):
        assert branch(torch.randn(batch, 7, 6, 4)).shape == (batch, 11)


def test_the_size_is_the_papers_formula() -> None:
    tokens, outputs, spec = 6, 11, SMALL.model_copy(update={"hidden": 256})
    p, d, h = spec.patch, spec.dim, spec.heads
    expected = p * p * 7 * d + d + tokens * d + h * (4 * d * d + 3 * d) + d + 4 * d
    expected += (4 * d * d + 3 * d) + (tokens * d * 256 + 256) + 65_792 + 257 * outputs
    assert count_params(spec.build(MAP, outputs)) == expected


def test_each_extra_head_costs_four_dim_squared_weights() -> None:
    def weights(heads: int) -> int:
        attention = Attention(32, heads)
        return attention.qkv.weight.numel() + attention.project.weight.numel()

    assert weights(16) - weights(1) == 15 * 4 * 32**2  # 0.06 M: paper, table 11


def test_every_token_holds_one_patch_of_all_channels() -> None:
    branch = SMALL.build(MAP, 11).eval()
    seen: list[torch.Tensor] = []
    branch.embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    features = torch.randn(1, 7, 6, 4)
    branch(features)
    second_row_first_column = features[0, :, 2:4, 0:2].reshape(-1)
    torch.testing.assert_close(seen[0][0, 2], second_row_first_column)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_gives_the_answers_and_gradients_of_evaluation(
    layout: torch.memory_format,
) -> None:
    spec = SMALL.model_copy(update={"dropout": 0.0, "standardise": True})
    branch, features = spec.build(MAP, 11).double(), torch.randn(3, 7, 6, 4).double()
    features = features.contiguous(memory_format=layout)
    found, weights = [], list(branch.parameters())
    for training in (True, False):
        answer = branch.train(training)(features)
        found.append([answer, *torch.autograd.grad(answer.square().sum(), weights)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_without_the_last_residual_only_the_mlp_speaks() -> None:
    branch = SMALL.model_copy(update={"last_residual": False, "dropout": 0.0}).build(MAP, 11)
    last = branch.encoder[-1]
    assert isinstance(last, Encoder)
    torch.nn.init.zeros_(last.mlp.get_parameter("2.weight"))
    one, other = branch(torch.randn(2, 7, 6, 4))
    torch.testing.assert_close(one, other)


def test_only_the_last_layer_loses_its_residual() -> None:
    spec = SMALL.model_copy(update={"layers": 3, "last_residual": False})
    assert [layer.residual for layer in spec.build(MAP, 2).encoder] == [True, True, False]


def test_the_final_norm_costs_two_weights_per_dimension() -> None:
    normed = SMALL.model_copy(update={"final_norm": True})
    assert count_params(normed.build(MAP, 11)) - count_params(SMALL.build(MAP, 11)) == 2 * 5


def test_a_patch_that_does_not_divide_names_those_that_do() -> None:
    with pytest.raises(ShapeError) as caught:
        SLViT(patch=5).build(FeatureShape(128, 28, 28), 10)
    assert str(caught.value) == (
        "patch=5 does not divide the 28x28 feature map, and SL-ViT does not pad. "
        "Use one of [1, 2, 4, 7, 14, 28], or cut elsewhere."
    )


def test_a_tap_without_height_and_width_is_refused_with_its_shape() -> None:
    for taps in ((197, 768), ((197, 768),)):
        with pytest.raises(
            ShapeError, match=r"4-D map \(B, C, H, W\); this tap is \(B, 197, 768\)"
        ):
            SLViT().build(taps, 10)


def test_one_tap_in_a_tuple_is_that_tap() -> None:
    assert SMALL.build((MAP,), 3).features == MAP


def test_a_side_input_with_the_channels_of_the_map_is_a_patch_of_equal_cells() -> None:
    """Paper, section 3.3: the same projection, so only a position and head weights are new."""
    branch = SMALL.build((MAP, (7,)), 3).eval()
    features, side = torch.randn(2, 7, 6, 4), torch.randn(2, 7)
    tall = torch.cat([features, side[..., None, None].expand(2, 7, 2, 4)], dim=2)
    tokens = branch._embed(tall)[:, :-1]  # two patches were added, and one side input is one token
    x = branch.encoder(tokens + branch.position)
    torch.testing.assert_close(branch(features, side), branch.head(x.flatten(1)))
    alone = SMALL.build(MAP, 3)
    assert count_params(branch) - count_params(alone) == SMALL.dim * (1 + SMALL.hidden)


def test_side_inputs_of_other_channels_are_tokens_by_a_layer_of_their_own() -> None:
    branch = SMALL.build((MAP, (9,), FeatureShape(4, 3, 3)), 3).eval()
    features, vector, small = torch.randn(2, 7, 6, 4), torch.randn(2, 9), torch.randn(2, 4, 3, 3)
    first, second = branch.side_embed
    own = [first(vector), second(small.mean(dim=(2, 3)))]
    tokens = torch.cat([branch._embed(features), torch.stack(own, dim=1)], dim=1)
    x = branch.encoder(tokens + branch.position)
    torch.testing.assert_close(branch(features, vector, small), branch.head(x.flatten(1)))


def test_side_inputs_are_standardised_each_by_its_own_statistics() -> None:
    spec = SMALL.model_copy(update={"standardise": True})
    plain, branch = SMALL.build((MAP, (9,)), 3).eval(), spec.build((MAP, (9,)), 3).eval()
    branch.load_state_dict(plain.state_dict(), strict=False)
    standardise = branch.sides[0].standardise
    assert isinstance(standardise, Standardise)
    standardise.set_statistics(torch.full((9,), 2.0), torch.full((9,), 4.0))
    features, side = torch.randn(2, 7, 6, 4), torch.randn(2, 9)
    torch.testing.assert_close(branch(features, side), plain(features, (side - 2) / 4))


def test_an_exported_branch_with_side_inputs_keeps_its_batch_free() -> None:
    branch = SMALL.build((MAP, (7,), FeatureShape(4, 3, 3)), 3).eval()

    def taps(batch: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(batch, 7, 6, 4), torch.randn(batch, 7), torch.randn(batch, 4, 3, 3)

    free = {0: torch.export.Dim("batch")}
    exported = torch.export.export(branch, taps(2), dynamic_shapes=(free, (free, free))).module()
    more = taps(5)
    torch.testing.assert_close(exported(*more), branch(*more))


def test_no_outputs_are_refused() -> None:
    with pytest.raises(ShapeError, match="num_outputs=0"):
        SMALL.build(MAP, 0)


def test_an_empty_map_is_refused() -> None:
    with pytest.raises(ShapeError, match="7x0x4"):
        SMALL.build(FeatureShape(7, 0, 4), 3)


@pytest.mark.parametrize("shape", [(2, 9, 6, 4), (2, 7, 4, 6), (7, 6, 4)])
def test_another_map_than_it_was_built_for_is_refused_with_both_shapes(
    shape: tuple[int, ...],
) -> None:
    with pytest.raises(ShapeError) as caught:
        SMALL.build(MAP, 3)(torch.randn(shape))
    assert "(B, 7, 6, 4)" in str(caught.value)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("standardise", [False, True])
def test_a_traced_branch_answers_the_same_for_any_batch(standardise: bool) -> None:
    branch = SMALL.model_copy(update={"standardise": standardise}).build(MAP, 3).eval()
    traced = fx.symbolic_trace(branch)
    for batch in (1, 4):
        features = torch.randn(batch, 7, 6, 4)
        torch.testing.assert_close(traced(features), branch(features), rtol=0, atol=0)


def test_an_exported_branch_keeps_its_batch_free() -> None:
    branch, features = SMALL.build(MAP, 3).eval(), torch.randn(2, 7, 6, 4)
    exported = torch.export.export(
        branch, (features,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module()
    more = torch.randn(5, 7, 6, 4)
    torch.testing.assert_close(exported(more), branch(more))


def test_a_branch_runs_under_autocast() -> None:
    spec = SMALL.model_copy(update={"standardise": True, "final_norm": True})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = spec.build(MAP, 3)(torch.randn(2, 7, 6, 4))
    assert outputs.shape == (2, 3)
    assert outputs.isfinite().all()


@pytest.mark.parametrize(
    "settings",
    [{"patch": 0}, {"dim": -1}, {"heads": 0}, {"layers": 0}, {"hidden": 0}, {"dropout": 1.0}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(PlanError, match=next(iter(settings))):
        SLViT(**settings)


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(PlanError, match="pach"):
        SLViT(pach=4)  # type: ignore[call-arg]


@pytest.mark.gpu
def test_a_branch_learns_on_a_gpu() -> None:
    branch = SMALL.build(MAP, 3).cuda()
    branch(torch.randn(2, 7, 6, 4, device="cuda")).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in branch.parameters())
