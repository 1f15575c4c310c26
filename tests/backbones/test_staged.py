import copy
import hashlib
import operator
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.errors import ArgumentError, CutError
from offramp.spec import FeatureShape


class Residual(nn.Module):
    """A residual block as ResNet has it: in-place ReLU, called twice, and `+=`."""

    def __init__(self, channels: int, inplace: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        result: Tensor = self.relu(out)
        return result


class SmallNet(nn.Module):
    """7 channels, two residual blocks, 11 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 7, 3, stride=2, padding=1), nn.BatchNorm2d(7))
        self.block1 = Residual(7)
        self.drop = nn.Dropout(0.5)
        self.block2 = Residual(7)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(7, 11)

    def forward(self, images: Tensor) -> Tensor:
        x = self.block2(self.drop(self.block1(self.stem(images))))
        logits: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return logits


class Function(nn.Module):
    """A network of two convolutions whose forward is any function of them and the input."""

    def __init__(self, function: Callable[[nn.Module, nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.function(self.a, self.b, x)).mean((2, 3))  # type: ignore[no-any-return]


def seeded(module: Callable[[], nn.Module]) -> nn.Module:
    """A module in training mode with batch-norm statistics that are not the trivial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = module()
        for part in made.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.running_mean)  # type: ignore[arg-type]
                nn.init.uniform_(part.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return made


def images(batch: int, height: int = 12, width: int = 10, seed: int = 3) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def equal_bits(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def answer(model: nn.Module, *inputs: Tensor) -> Tensor:
    """What the user's own model gives in evaluation mode; its input and mode stay as they were."""
    mode = model.training
    try:
        with torch.no_grad():
            result: Tensor = model.eval()(*(tensor.clone() for tensor in inputs))
            return result
    finally:
        model.train(mode)


def fingerprint(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def walk_and_check(backbone: StagedBackbone, inputs: Sequence[Tensor]) -> Tensor:
    """Run stage by stage; afterwards every tensor that was handed out must be as it was."""
    seen: list[tuple[Tensor, str]] = [(tensor, fingerprint(tensor)) for tensor in inputs]
    live = tuple(inputs)
    with torch.no_grad():
        for stage in backbone.stages:
            live, taps = stage(live)
            seen += [(tensor, fingerprint(tensor)) for tensor in (*live, *taps)]
    assert [fingerprint(tensor) for tensor, _ in seen] == [before for _, before in seen]
    (output,) = live
    return output


PLACES = [
    "stem.0",
    "stem",
    "block1.conv1",
    "block1.relu_0",
    "block1.bn2",
    "block1.add",
    "block1",
    "block2.bn1",
    "pool",
    "flatten",
]


@pytest.mark.parametrize("place", PLACES)
def test_two_stages_compose_to_the_model_bit_for_bit(place: str) -> None:
    model = seeded(SmallNet)
    backbone = cut(model, [place], images(2))
    equal_bits(backbone(images(2)), answer(model, images(2)))
    equal_bits(walk_and_check(backbone, [images(2)]), answer(model, images(2)))


def test_many_cuts_together_compose_to_the_model_and_change_no_tensor_in_place() -> None:
    model = seeded(SmallNet)
    backbone = cut(model, PLACES[::-1], images(2))
    assert backbone.cuts == tuple(PLACES)
    equal_bits(walk_and_check(backbone, [images(3)]), answer(model, images(3)))


def test_another_batch_and_image_size_than_the_sample_s_run() -> None:
    model = seeded(SmallNet)
    backbone = cut(model, ["block1.conv2", "block2"], images(1))
    equal_bits(backbone(images(5, 8, 14)), answer(model, images(5, 8, 14)))


def test_a_cut_inside_a_residual_block_carries_both_tensors() -> None:
    backbone = cut(seeded(SmallNet), ["block1.conv1"], images(1))
    live, taps = backbone.stages[0]((images(1),))
    assert len(live) == 2
    assert taps[0].shape == (1, 7, 6, 5)


def test_shapes_leave_out_the_batch_axis() -> None:
    backbone = cut(seeded(SmallNet), ["flatten", "block1"], images(4))
    assert backbone.tap_shapes == {"block1": (FeatureShape(7, 6, 5),), "flatten": ((7,),)}
    assert backbone.input_shapes == ((3, 12, 10),)
    assert backbone.output_shape == (11,)
    assert backbone.num_outputs == 11


def test_a_branch_is_built_for_one_shape_or_for_all_of_a_cut() -> None:
    both = Cut("both", after=("block1",), taps=("block1", "stem.0"))
    backbone = cut(seeded(SmallNet), [both, "flatten"], images(4))
    assert backbone.features("flatten") == (7,)
    assert backbone.features("both") == (FeatureShape(7, 6, 5), FeatureShape(7, 6, 5))
    assert cut(seeded(SmallNet), ["stem"], images(1)).features("stem") == FeatureShape(7, 6, 5)
    taps = backbone.zero_taps("both", device="meta")
    assert [(tap.shape, tap.device.type) for tap in taps] == [((1, 7, 6, 5), "meta")] * 2
    with pytest.raises(CutError, match=r"no cut 'stem'; .* cut at \['both', 'flatten'\]"):
        backbone.features("stem")


def test_a_cut_may_have_several_taps() -> None:
    model = seeded(SmallNet)
    stem, block1 = model.get_submodule("stem"), model.get_submodule("block1")
    both = Cut("both", after=("block2.conv1",), taps=("block1", "stem"))
    backbone = cut(model, [both, "stem.0"], images(2))
    live, _ = backbone.stages[0]((images(2),))
    _, (first, second) = backbone.stages[1](live)
    equal_bits(first, answer(nn.Sequential(stem, block1), images(2)))
    equal_bits(second, answer(stem, images(2)))
    equal_bits(walk_and_check(backbone, [images(2)]), answer(model, images(2)))
    assert backbone.places[1] == both
    assert backbone.tap_shapes["both"] == (FeatureShape(7, 6, 5), FeatureShape(7, 6, 5))


class TwoInputs(nn.Module):
    """Sound joins late; its own layers need not run before."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 5, 3, padding=1)
        self.look = nn.Conv2d(5, 5, 3, padding=1)
        self.hear = nn.Linear(6, 5)
        self.fuse = nn.Conv2d(5, 5, 1)

    def forward(self, image: Tensor, sound: Tensor) -> Tensor:
        heard = self.hear(sound)
        seen = self.look(self.see(image).relu_())
        joined: Tensor = self.fuse(seen * heard[:, :, None, None])
        return joined.mean((2, 3))


def test_a_stage_runs_only_what_its_taps_need_and_keeps_a_late_input_alive() -> None:
    model = seeded(TwoInputs)
    sound = torch.randn(2, 6, generator=torch.Generator().manual_seed(9))
    backbone = cut(model, ["see", "look", Cut("both", taps=("look", "hear"))], (images(2), sound))
    owned = [{name.split(".")[1] for name, _ in s.named_parameters()} for s in backbone.stages]
    assert owned == [{"see"}, {"look"}, {"hear"}, {"fuse"}]
    live, _ = backbone.stages[0]((images(2), sound))
    assert any(tensor is sound for tensor in live)
    equal_bits(walk_and_check(backbone, [images(2), sound]), answer(model, images(2), sound))
    assert backbone.input_shapes == ((3, 12, 10), (6,))
    assert backbone.places[2] == Cut("both", after=("look", "hear"), taps=("look", "hear"))


def inplace_seen_through_a_name(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    y = a(x)
    F.relu(y, inplace=True)  # nobody keeps what it returns
    return b(y) + y  # type: ignore[no-any-return]


def method_after_reader(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    y = a(x)
    z = b(y)
    y.mul_(2).add_(1)
    z += y
    return torch.relu_(z)


def on_the_input(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    x -= 0.5
    x /= 3
    return b(a(F.hardtanh(x, -1, 1, True)))  # type: ignore[no-any-return]


def size_dependent(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    y = a(x)
    batch, channels, height, width = y.shape
    half = channels // 2
    y = y.view(batch, half, 2, height, width).transpose(1, 2)
    z = b(y.reshape(batch, -1, height, width))
    return z.view(x.size(0), channels, height, width) * (x.shape[2] / width)  # type: ignore[no-any-return]


def in_pieces(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    pieces = a(x).chunk(2, dim=1)
    y = torch.cat([pieces[1], pieces[0]], 1)
    return b(y) + torch.cat(pieces, 1)  # type: ignore[no-any-return]


def dense(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    features = [a(x)]
    for _ in range(3):
        features.append(F.relu(b(torch.stack(features).sum(0)), inplace=True))
    return torch.stack(features).sum(0)


def called_twice(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    return b(b(a(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "places"),
    [
        (inplace_seen_through_a_name, ["a", "relu", "b"]),
        (method_after_reader, ["a", "b", "mul_", "add_", "add"]),
        (on_the_input, ["sub", "truediv", "hardtanh", "a", "b"]),
        (size_dependent, ["a", "transpose", "b", "mul"]),
        (in_pieces, ["a", "getitem", "cat", "b"]),
        (dense, ["a", "b_0", "relu", "b_1", "stack_1", "b_2", "relu_2"]),
        (called_twice, ["a", "b_0", "b_1"]),
    ],
)
def test_awkward_forwards_stay_bit_equal_however_they_are_cut(
    function: Callable[[nn.Module, nn.Module, Tensor], Tensor], places: list[str]
) -> None:
    model = seeded(lambda: Function(function))
    for chosen in (places, *([place] for place in places)):
        backbone = cut(model, chosen, images(2))
        equal_bits(walk_and_check(backbone, [images(3, 6, 4)]), answer(model, images(3, 6, 4)))


def test_the_user_s_input_is_not_changed_by_a_model_that_changes_its_input() -> None:
    model = seeded(lambda: Function(on_the_input))
    sample = images(2)
    cut(model, ["b"], sample)(given := images(1))
    equal_bits(sample, images(2))
    equal_bits(given, images(1))


def targets(stage: nn.Module) -> set[object]:
    body = stage.get_submodule("body")
    assert isinstance(body, fx.GraphModule)
    return {node.target for node in body.graph.nodes}


def test_in_place_operations_that_no_cut_sees_stay_in_place() -> None:
    backbone = cut(seeded(SmallNet), ["block1"], images(1))
    inplace = {n: m.inplace for n, m in backbone.named_modules() if isinstance(m, nn.ReLU)}
    assert inplace == {"stages.0.body.block1_relu": True, "stages.1.body.block2_relu": True}
    assert all(operator.iadd in targets(stage) for stage in backbone.stages)


def through_a_view(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    y = a(x)
    y[:, :2].relu_()
    return b(y)  # type: ignore[no-any-return]


def item_set(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
    y = a(x)
    same = y
    y[:, 1] = y[:, 0]
    y += 1
    return b(same) + y  # type: ignore[no-any-return]


def test_a_tensor_with_two_names_is_changed_under_both() -> None:
    model = seeded(lambda: Function(item_set))
    for places in (["b"], ["add"], ["add_1"], ["add", "b", "add_1"]):
        backbone = cut(model, places, images(1))
        equal_bits(walk_and_check(backbone, [images(2)]), answer(model, images(2)))


def test_a_change_through_a_view_is_kept_within_a_stage_and_refused_across_a_cut() -> None:
    model = seeded(lambda: Function(through_a_view))
    equal_bits(cut(model, ["b"], images(1))(images(2)), answer(model, images(2)))
    with pytest.raises(CutError, match=r"relu_ operates in place on a tensor .* through a view"):
        cut(model, ["a"], images(1))


def test_the_staged_copy_and_the_user_s_model_do_not_reach_each_other() -> None:
    model = seeded(SmallNet)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    backbone = cut(model, ["block1"], images(2))
    expected = backbone(images(2))

    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    model(images(4)).sum().backward()  # moves the user's batch-norm statistics, makes gradients
    equal_bits(backbone(images(2)), expected)
    assert all(weight.grad is None for weight in backbone.parameters())

    model.load_state_dict(before)
    backbone.train().requires_grad_()
    backbone(images(4))
    assert not any(module.training for module in backbone.modules())
    assert not any(weight.requires_grad for weight in backbone.parameters())
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    for name, tensor in model.state_dict().items():
        equal_bits(tensor, before[name])


def test_weights_are_shared_so_that_a_change_in_place_shows_and_no_memory_is_spent() -> None:
    model = seeded(SmallNet)
    backbone = cut(model, ["block1"], images(1))
    held = {weight.data_ptr() for weight in backbone.parameters()}
    assert held == {weight.data_ptr() for weight in model.parameters()}
    digest = backbone.weights_digest()
    with torch.no_grad():
        model.get_parameter("block1.conv1.weight").mul_(2)
    equal_bits(backbone(images(2)), answer(model, images(2)))
    assert backbone.weights_digest() != digest


def test_the_digest_knows_weights_and_architecture_but_not_cuts() -> None:
    class OtherOrder(SmallNet):
        def forward(self, images: Tensor) -> Tensor:
            x = self.block1(self.drop(self.block2(self.stem(images))))
            logits: Tensor = self.fc(torch.flatten(self.pool(x), 1))
            return logits

    digest = cut(seeded(SmallNet), ["block1"], images(1)).weights_digest()
    assert cut(seeded(SmallNet), ["stem", "pool"], images(3)).weights_digest() == digest
    assert cut(seeded(OtherOrder), ["block1"], images(1)).weights_digest() != digest


def test_flops_of_the_stages_are_for_one_image_and_sum_to_the_whole() -> None:
    model = seeded(SmallNet)
    backbone = cut(model, ["stem.0", "block1"], images(4))
    stem, block1, rest = backbone.stage_flops()
    conv = 2 * 7 * 7 * 9 * 6 * 5
    assert (stem, block1) == (2 * 3 * 7 * 9 * 6 * 5, 2 * conv)
    assert rest == 2 * conv + 2 * 7 * 11


def test_the_original_is_kept_but_is_not_a_submodule() -> None:
    model = seeded(SmallNet)
    backbone = cut(model, ["block1"], images(1))
    assert backbone.original is model
    assert len(backbone.state_dict()) == len(model.state_dict())
    assert backbone.places == (Cut("block1", ("block1",), ("block1",)),)


def refusal(after: Sequence[str | Cut], model: nn.Module | None = None) -> str:
    with pytest.raises(CutError) as caught:
        cut(model or seeded(SmallNet), after, images(1))
    return str(caught.value)


def test_an_unknown_place_is_answered_with_the_nearest_ones() -> None:
    told = refusal(["blok1.conv1"])
    assert "'blok1.conv1'" in told
    assert "block1.conv1" in told


def test_a_module_called_several_times_must_be_named_by_node() -> None:
    told = refusal(["block1.relu"])
    assert "called 2 times" in told
    assert "block1.relu_0, block1.relu_1" in told


def test_a_place_that_is_not_a_tensor_is_refused_with_its_tensors() -> None:
    told = refusal(["chunk"], seeded(lambda: Function(in_pieces)))
    assert "a tuple" in told
    assert "getitem, getitem_1" in told


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([], "after is empty"),
        (["fc"], "at the output"),
        (["images"], "at the input"),
        (["block1", "block1"], "Two cuts are called 'block1'"),
        (["block1", "drop"], "at the same place"),
        (["block1", Cut("again", after=("block1.relu_1",))], "at the same place"),
        (["block2", Cut("same", after=("block1", "block2"))], "at the same place"),
    ],
)
def test_cuts_that_make_no_stage_are_refused(after: list[str | Cut], expected: str) -> None:
    assert expected in refusal(after)


@pytest.mark.parametrize(
    ("make", "expected"),
    [(lambda: Cut("x"), "names no place"), (lambda: Cut("x", "block1"), "Give a tuple of places")],  # type: ignore[arg-type]
)
def test_a_cut_without_proper_places_is_refused(make: Callable[[], Cut], expected: str) -> None:
    with pytest.raises((CutError, ArgumentError), match=expected):
        make()


def test_cutting_and_running_in_inference_mode_gives_the_same() -> None:
    with torch.inference_mode():
        model = seeded(SmallNet)
        backbone = cut(model, ["block1.bn1"], images(1))
        equal_bits(backbone(images(2)), model.eval()(images(2)))


class Namesake(nn.Module):
    """Modules whose names are taken in a graph module, or the same once dots are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = nn.Sequential(nn.Conv2d(3, 4, 1))
        self.graph_0 = nn.Conv2d(4, 4, 1)
        self.code = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.code(self.graph_0(self.graph(x)))
        return result


def test_awkward_module_names_do_not_collide() -> None:
    model = seeded(Namesake)
    for places in (["graph"], ["graph_0"]):
        equal_bits(cut(model, places, images(1))(images(2)), answer(model, images(2)))


def test_a_staged_backbone_can_be_copied_and_moved_without_touching_the_user_s_model() -> None:
    model = seeded(SmallNet)
    backbone = cut(model, ["block1"], images(1))
    double = copy.deepcopy(backbone).double()
    torch.testing.assert_close(double(images(2).double()).float(), backbone(images(2)))
    backbone.double()
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert (
        double.stage_flops()
        == backbone.stage_flops()
        == cut(model, ["block1"], images(3)).stage_flops()
    )
