import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.branches import ConvBranch, SLViT
from offramp.errors import BundleError, CutError, ShapeError
from offramp.multiexit.model import ExitTimings, MultiExit
from offramp.multiexit.trial import Epoch, ModelInfo, Trial
from offramp.policy import find_score
from offramp.task import Task

CLASSES = 5


class Toy(nn.Module):
    """(B, 3, 12, 8) to (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU(True))
        self.second = nn.Conv2d(7, 9, 3, stride=2, padding=1)
        self.third = nn.Conv2d(9, 4, 1)
        self.top = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.third(self.second(self.first(images)).relu()).relu()
        top: Tensor = self.top(x.mean((2, 3)))
        return top


def trial(backbone: StagedBackbone, name: str, spec: SLViT | ConvBranch, seed: int = 0) -> Trial:
    torch.manual_seed(seed)
    branch = spec.build(backbone.tap_shapes[name][0], CLASSES)
    history = (Epoch(1, 1.5, 1.25, 0.375, 1e-3),)
    return Trial(name, spec, seed, branch, history, 1, 1.25, 0.375)


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(7)
    return Toy().eval()


@pytest.fixture
def model(module: nn.Module) -> MultiExit:
    backbone = cut(module, ["first", "second"], torch.zeros(1, 3, 12, 8))
    trials = [
        trial(backbone, "first", SLViT(patch=4, dim=6, heads=2)),
        trial(backbone, "first", ConvBranch(filters=3), 1),
        trial(backbone, "second", ConvBranch(filters=3)),
    ]
    chosen = {"second": trials[2], "first": trials[0]}
    return MultiExit(backbone, chosen, trials, info=ModelInfo(class_names=tuple("abcde")))


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(11, 3, 12, 8)).astype(np.float32), rng.integers(0, CLASSES, 11)


def test_all_exits_answer_in_graph_order(model: MultiExit, module: nn.Module) -> None:
    images = torch.randn(2, 3, 12, 8)
    answers = model(images)
    assert answers.shape == (3, 2, CLASSES)
    assert model.names == ("first", "second", "final")
    assert torch.equal(answers[-1], module(images))


def test_walking_gives_what_forward_gives(model: MultiExit) -> None:
    images = torch.randn(2, 3, 12, 8)
    walked = dict(model.walk(images))
    assert tuple(walked) == model.names
    assert torch.equal(torch.stack(list(walked.values())), model(images))


def test_a_stage_runs_only_when_its_exit_is_requested(model: MultiExit) -> None:
    ran: list[int] = []
    for index, stage in enumerate(model.backbone.stages):
        stage.register_forward_hook(lambda *_, index=index: ran.append(index))
    walk = model.walk(torch.randn(1, 3, 12, 8))
    assert ran == []
    for stages in (1, 2, 3):
        next(walk)
        assert ran == list(range(stages))


def test_a_branch_runs_only_where_one_was_chosen(model: MultiExit) -> None:
    only = MultiExit(model.backbone, {"second": model.chosen["second"]})
    assert only.names == ("second", "final")
    assert sum(only.exit_stage_flops()) == sum(model.exit_stage_flops())
    assert only.exit_stage_flops()[0] == sum(model.exit_stage_flops()[:2])


def test_collecting_gives_what_forward_gives(
    model: MultiExit, data: tuple[np.ndarray, np.ndarray]
) -> None:
    outputs = model.collect(data, batch_size=4, split="test")
    expected = model(torch.from_numpy(data[0]))
    np.testing.assert_allclose(outputs.outputs, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs.labels, data[1])
    assert outputs.branch_flops[-1] == 0
    assert outputs.source is not None
    assert outputs.class_names == tuple("abcde")
    assert outputs.source["split"] == "test"


SURE = SLViT(patch=4, dim=6, heads=2, error_predictor=True)


def predicting(module: nn.Module, *specs: SLViT | ConvBranch, task: Task) -> MultiExit:
    backbone = cut(module, ["first", "second"], torch.zeros(1, 3, 12, 8))
    trials = [
        trial(backbone, name, spec) for name, spec in zip(("first", "second"), specs, strict=True)
    ]
    return MultiExit(backbone, {t.cut: t for t in trials}, trials, task=task)


def test_a_predictors_word_is_the_score_and_no_part_of_the_answer(
    module: nn.Module, data: tuple[np.ndarray, np.ndarray]
) -> None:
    model = predicting(
        module, SURE, ConvBranch(filters=3, error_predictor=True), task="classification"
    )
    outputs = model.collect(data, batch_size=4)
    assert outputs.outputs.shape == (3, 11, CLASSES)
    assert model(torch.from_numpy(data[0])).shape == (3, 11, CLASSES)
    assert outputs.scores is not None
    start = find_score("max_softmax").of(outputs)  # what an untrained predictor says
    np.testing.assert_allclose(find_score("given").of(outputs), start, atol=1e-5)
    assert (outputs.scores[-1] == 1).all()


def test_there_are_scores_only_where_every_branch_predicts(
    module: nn.Module, data: tuple[np.ndarray, np.ndarray]
) -> None:
    mixed = predicting(module, SURE, ConvBranch(filters=3), task="classification")
    assert mixed.collect(data).scores is None


def test_a_predictor_of_values_scores_by_minus_its_error(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    torch.manual_seed(7)
    toy = Toy()
    toy.top = nn.Linear(4, 1)
    backbone = cut(toy.eval(), ["first"], torch.zeros(1, 3, 12, 8))
    branch = SURE.build(backbone.tap_shapes["first"][0], 1)
    branch.load_state_dict(branch.state_dict() | {"head.6.bias": torch.tensor([2.5])})
    one = Trial("first", SURE, 0, branch, (), 1, 1.0, -1.0)
    model = MultiExit(backbone, {"first": one}, [one], task="regression")
    outputs = model.collect((data[0], data[1].astype(np.float32)))
    assert outputs.scores is not None
    assert outputs.scores.tolist() == [[-2.5] * 11, [0.0] * 11]


def test_a_model_with_predictors_is_saved_with_them(
    module: nn.Module, data: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    model = predicting(module, SURE, SURE.model_copy(update={"patch": 2}), task="classification")
    model.save(tmp_path)
    again = MultiExit.load(tmp_path, backbone=module)
    np.testing.assert_array_equal(again.collect(data).scores, model.collect(data).scores)


def test_collecting_leaves_the_mode_alone(
    model: MultiExit, data: tuple[np.ndarray, np.ndarray]
) -> None:
    model.train()
    model.collect(data)
    assert model.training
    assert all(branch.training for branch in model.branches)
    assert not model.backbone.training


def test_collecting_drops_nothing_out_in_train_mode(
    model: MultiExit, data: tuple[np.ndarray, np.ndarray]
) -> None:
    calm = model.eval().collect(data).outputs
    np.testing.assert_array_equal(model.train().collect(data).outputs, calm)


def test_timings_travel_with_the_outputs(
    model: MultiExit, data: tuple[np.ndarray, np.ndarray]
) -> None:
    timings = ExitTimings((1.0, 2.0, 4.0), (0.5, 0.25, 0.0))
    np.testing.assert_allclose(
        model.collect(data, timings=timings).own_path_cost("ms"), [1.5, 3.25, 7.0]
    )


def test_a_saved_model_answers_bit_for_bit(
    model: MultiExit, module: nn.Module, tmp_path: Path
) -> None:
    model.save(tmp_path)
    again = MultiExit.load(tmp_path, backbone=module)
    images = torch.randn(3, 3, 12, 8)
    assert torch.equal(again(images), model(images))
    assert again.digest() == model.digest()
    assert [t.history for t in again.trials] == [t.history for t in model.trials]
    assert again.info.class_names == tuple("abcde")
    assert {name: t.spec for name, t in again.chosen.items()} == {
        name: t.spec for name, t in model.chosen.items()
    }


def test_a_staged_backbone_may_be_given_in_place_of_its_module(
    model: MultiExit, tmp_path: Path
) -> None:
    model.save(tmp_path)
    assert MultiExit.load(tmp_path, backbone=model.backbone).digest() == model.digest()


def test_a_cut_with_its_own_name_and_taps_is_saved(module: nn.Module, tmp_path: Path) -> None:
    named = Cut("early", after=("second",), taps=("first",))
    backbone = cut(module, [named], torch.zeros(1, 3, 12, 8))
    early = trial(backbone, "early", ConvBranch(filters=2))
    model = MultiExit(backbone, {"early": early})
    model.save(tmp_path)
    images = torch.randn(3, 3, 12, 8)
    assert torch.equal(MultiExit.load(tmp_path, backbone=module)(images), model(images))


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_a_flipped_byte_is_refused_and_the_file_named(
    model: MultiExit, module: nn.Module, tmp_path: Path, name: str
) -> None:
    model.save(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(BundleError, match=name.replace(".", r"\.")):
            MultiExit.load(tmp_path, backbone=module)


def test_the_backbone_must_have_the_weights_it_was_trained_with(
    model: MultiExit, tmp_path: Path
) -> None:
    model.save(tmp_path)
    torch.manual_seed(8)
    with pytest.raises(BundleError, match="is not the one that its branches were trained on"):
        MultiExit.load(tmp_path, backbone=Toy())


def test_a_backbone_from_the_api_must_be_given_again(model: MultiExit, tmp_path: Path) -> None:
    model.save(tmp_path)
    with pytest.raises(BundleError, match=r"Pass it: MultiExit\.load"):
        MultiExit.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "place"),
    [("torchvision:squeezenet1_1", "features.4"), ("torchvision:mnasnet0_5", "layers.8")],
)
def test_a_zoo_backbone_is_stored_with_the_model(name: str, place: str, tmp_path: Path) -> None:
    from offramp.backbones.zoo import build

    module = build(name, num_outputs=CLASSES, seed=3)
    backbone = cut(module, [place], torch.zeros(1, 3, 64, 64))
    chosen = {place: trial(backbone, place, ConvBranch(filters=2))}
    facts = {"name": name, "num_outputs": CLASSES}
    model = MultiExit(backbone, chosen, info=ModelInfo(backbone=facts))
    model.save(tmp_path)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(MultiExit.load(tmp_path)(images), model(images))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["backbone"]["name"] == name


def test_branches_at_unknown_cuts_are_refused(model: MultiExit) -> None:
    with pytest.raises(CutError, match=r"\['third'\]"):
        MultiExit(model.backbone, {"third": model.chosen["first"]})


def test_inputs_of_another_size_are_refused(model: MultiExit) -> None:
    wrong = np.zeros((2, 3, 8, 12), np.float32), np.zeros(2, np.int64)
    with pytest.raises(ShapeError, match=r"\(3, 12, 8\).*\(3, 8, 12\)"):
        model.collect(wrong)
