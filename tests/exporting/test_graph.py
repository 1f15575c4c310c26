import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.stage import Stage
from offramp.backbones.staged import StagedBackbone, cut
from offramp.backbones.zoo import build, describe
from offramp.branches.conv import ConvBranch
from offramp.branches.predictor import AnswerAndError
from offramp.branches.slvit import SLViT
from offramp.branches.tap import Standardise
from offramp.errors import ExportError, ExtraError
from offramp.exporting.graph import onnx_graph
from offramp.spec import FeatureShape, TapShape

TOLERANCE = 1e-3


class Join(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        z = torch.relu(self.norm(self.conv(x)))
        return self.drop(z), z.mean((2, 3)) + y


def drawn(*shapes: tuple[int, ...], rows: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return [torch.randn(rows, *shape, generator=generator) for shape in shapes]


def answers(graph: bytes, inputs: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, {n: each.numpy() for n, each in zip(names, inputs, strict=True)}))


def shapes(values: Any) -> dict[str, list[Any]]:
    return {
        each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in values
    }


def check(module: nn.Module, *sizes: tuple[int, ...]) -> float:
    """Export, run on batches of 1, 3 and 32, and give the largest relative difference."""
    inputs = [f"in{i}" for i in range(len(sizes))]
    with torch.no_grad():
        first = module.eval()(*drawn(*sizes))
    num_outputs = 1 if isinstance(first, Tensor) else len(first)
    graph = onnx_graph(module, drawn(*sizes), inputs, [f"out{i}" for i in range(num_outputs)])
    worst = 0.0
    for rows in (1, 3, 32):
        given = drawn(*sizes, rows=rows)
        with torch.no_grad():
            expected = module(*given)
        pairs = zip(
            answers(graph, given),
            [expected] if isinstance(expected, Tensor) else expected,
            strict=True,
        )
        for got, want in pairs:
            assert got.shape == want.shape
            difference = float(np.abs(got - want.numpy()).max() / want.abs().max())
            worst = max(worst, difference)
    assert worst <= TOLERANCE
    return worst


@pytest.mark.slow
def test_a_graph_answers_batches_of_any_size_as_the_module_does() -> None:
    assert check(Join(), (2, 7, 5), (4,)) < 1e-4


def test_inputs_and_outputs_have_the_names_given_and_the_batch_first() -> None:
    graph = onnx.load_from_string(
        onnx_graph(Join(), drawn((2, 7, 5), (4,), rows=1), ["picture", "sound"], ["map", "sum"])
    )
    assert shapes(graph.graph.input) == {"picture": ["batch", 2, 7, 5], "sound": ["batch", 4]}
    assert shapes(graph.graph.output) == {"map": ["batch", 4, 5, 3], "sum": ["batch", 4]}
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 20)]


@pytest.mark.slow
def test_a_module_in_training_is_written_as_in_evaluation_and_left_as_it_was() -> None:
    module = Join().train()
    module.drop.eval()
    graph = onnx_graph(module, drawn((2, 7, 5), (4,)), ["x", "y"], ["a", "b"])
    assert [module.training, module.conv.training, module.drop.training] == [True, True, False]
    given = drawn((2, 7, 5), (4,), rows=5)
    with torch.no_grad():
        expected = module.eval()(*given)
    for got, want in zip(answers(graph, given), expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-6)


class Again(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        z = x + y
        return x, z, z, y.contiguous(), z.view(z.shape), torch.relu(z)


def test_an_input_or_output_returned_again_is_an_output_of_its_own() -> None:
    assert check(Again(), (3,), (3,)) == 0
    outputs = [f"out{i}" for i in range(6)]
    graph = onnx.load_from_string(onnx_graph(Again(), drawn((3,), (3,)), ["x", "y"], outputs))
    assert list(shapes(graph.graph.output)) == outputs


class Ignores(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (torch.relu(x),)


@pytest.mark.slow
def test_an_input_that_is_not_read_stays_an_input() -> None:
    assert check(Ignores(), (3,), (2,)) == 0


class Chain(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        once = torch.relu(x - 1)
        twice = torch.relu(once + y)
        return twice, once


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["relu", "add"], ["sub", "relu_1"]),
        pytest.param(["y", "x"], ["relu", "add"], marks=pytest.mark.slow),
        pytest.param(["inputs_1", "inputs_0"], ["relu_1", "relu"], marks=pytest.mark.slow),
        pytest.param(["a name/with.signs", "b"], ["relu_", "relu"], marks=pytest.mark.slow),
    ],
)
def test_names_may_be_those_that_the_exporter_gives_to_other_values(
    inputs: list[str], outputs: list[str]
) -> None:
    x, y = drawn((3,), (3,))
    graph = onnx_graph(Chain(), [x, y], inputs, outputs)
    model = onnx.load_from_string(graph)
    assert [list(shapes(model.graph.input)), list(shapes(model.graph.output))] == [inputs, outputs]
    for got, want in zip(answers(graph, [x, y]), Chain()(x, y), strict=True):
        np.testing.assert_array_equal(got, want.numpy())


class Rows(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("table", torch.ones(3, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.way == "a constant":
            return (x.reshape(3, -1),)
        if self.way == "an int":
            return (x.reshape(int(x.shape[0]), -1),)
        if self.way == "a table":
            return x + 1, self.table  # type: ignore[return-value]
        if self.way == "twice":
            return (torch.cat([x, x]),)
        if self.way == "few":
            return (x + 1,) if x.shape[0] < 9 else (x - 1,)
        if self.way == "a branch":
            return (x + 1,) if x.sum() > 0 else (x - 1,)
        return (x.sum(),)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("a constant", r"^the graph of Rows would take batches of 3 only, .* -1 or x.shape\[0\]"),
        ("an int", r"^the graph of Rows would take batches of 3 only, .* -1 or x.shape\[0\]"),
        ("a table", r"^b has the shape \[3, 4\] in the graph, but a first axis that is the batch"),
        pytest.param(
            "twice", r"^a has the shape \['2\*batch', 2, 2\] in the graph", marks=pytest.mark.slow
        ),
        ("a sum", r"^a has the shape \[\] in the graph"),
        ("a branch", r"^Rows cannot be written as an ONNX graph for batches of any size, since"),
        ("few", r"^Rows cannot be written .* cannot follow its forward: UserError: Not all values"),
    ],
)
def test_a_module_without_one_row_for_each_sample_is_refused(
    way: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["a", "b"] if way == "a table" else ["a"]
    with pytest.raises(ExportError, match=message):
        onnx_graph(Rows(way), drawn((2, 2)), ["x"], names)
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_a_graph_is_refused_at_once() -> None:
    (x,) = drawn((3,))
    with pytest.raises(ExportError, match=r"^the names \['x'\] stand for several"):
        onnx_graph(nn.ReLU(), [x], ["x"], ["x"])
    with pytest.raises(ExportError, match=r"^the inputs have the shapes \[\(0, 3\)\], but"):
        onnx_graph(nn.ReLU(), [x[:0]], ["x"], ["y"])
    with pytest.raises(ExportError, match=r"^Linear has 3.4 GB of weights, but one ONNX file"):
        onnx_graph(nn.Linear(30000, 30000, device="meta"), [x], ["x"], ["y"])
    with pytest.raises(ExportError, match=r"^outputs of the graph: 1; names given for them: 2"):
        onnx_graph(nn.ReLU(), [x], ["x"], ["y", "z"])
    with pytest.raises(ExportError, match=r"^inputs of the graph: 1; names given for them: 2"):
        onnx_graph(nn.ReLU(), [x], ["x", "w"], ["y"])


def test_a_file_holds_all_weights_and_nothing_of_the_machine() -> None:
    module = nn.Sequential(nn.Linear(300, 400), nn.GELU())
    graph = onnx_graph(module, drawn((300,)), ["x"], ["y"])
    weights = 4 * (300 * 400 + 400)
    assert weights < len(graph) < weights + 2000
    assert str(Path(__file__).parents[2]).encode() not in graph
    assert b".py" not in graph


WRITE = """
import sys, torch
from offramp.exporting.graph import onnx_graph
torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten())
graphs = [onnx_graph(module, [torch.zeros(rows, 2, 4, 4)], ["x"], ["y"]) for rows in (1, 4)]
open(sys.argv[1], "wb").write(graphs[0])
sys.exit(graphs[0] != graphs[1])
"""


@pytest.mark.slow
def test_the_same_module_gives_the_same_bytes_in_every_process_and_no_word(tmp_path: Path) -> None:
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file in files:
        command = [sys.executable, "-c", WRITE, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExtraError, match=r"onnxscript.*pip install 'offramp\[export\]'$"):
        onnx_graph(nn.ReLU(), drawn((3,)), ["x"], ["y"])


MAP = FeatureShape(6, 8, 8)
FIRST = (SLViT(patch=4), ConvBranch(pool="global"))
MORE = (
    SLViT(patch=2, layers=2, last_residual=False, final_norm=True, mlp_activation="relu"),
    SLViT(patch=8, error_predictor=True, standardise=True),
    ConvBranch(layers=0, pool="global"),
    ConvBranch(dilation=2, padding=(1, 1), layers=2, norm=True, pool=4, activation="gelu"),
    ConvBranch(pool=1, error_predictor=True, standardise=True),
)


def built(spec: SLViT | ConvBranch, *taps: TapShape, num_outputs: int = 3) -> nn.Module:
    """A branch of which no part gives zeros only, as new ones have them."""
    generator = torch.Generator().manual_seed(0)
    module = spec.build(taps if len(taps) > 1 else taps[0], num_outputs)
    for part in module.modules():
        if isinstance(part, Standardise):
            part.set_statistics(*(torch.rand(part.mean.shape, generator=generator) for _ in "ab"))
        if isinstance(part, AnswerAndError):
            nn.init.normal_(part.weight, generator=generator)
    return module


@pytest.mark.parametrize("spec", FIRST, ids=lambda spec: spec.label())
def test_branches_answer_as_in_torch(spec: SLViT | ConvBranch) -> None:
    assert check(built(spec, MAP), (6, 8, 8)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("num_outputs", [1, 5])
@pytest.mark.parametrize("spec", MORE, ids=lambda spec: spec.label())
def test_branches_with_other_settings_do_too(spec: SLViT | ConvBranch, num_outputs: int) -> None:
    assert check(built(spec, MAP, num_outputs=num_outputs), (6, 8, 8)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["refuse", "token"])
@pytest.mark.parametrize("kind", [SLViT, ConvBranch])
def test_branches_with_side_inputs_do_too_where_some_are_absent(
    kind: type[SLViT | ConvBranch], absent: Literal["refuse", "token"]
) -> None:
    spec = kind(absent=absent, error_predictor=True, standardise=True)
    module = built(spec, MAP, (6,), FeatureShape(7, 3, 5)).eval()
    given = drawn((6, 8, 8), (6,), (7, 3, 5), rows=6)
    graph = onnx_graph(module, given, ["map", "vector", "side"], ["outputs"])
    if absent == "token":
        given[1][1::3] = given[2][2::3] = given[1][0] = given[2][0] = torch.nan
    with torch.no_grad():
        expected = module(*given)
    assert expected.isfinite().all()
    (got,) = answers(graph, given)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-4 * float(expected.abs().max()))


class Flat(nn.Module):
    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        live, taps = self.stage(inputs)
        return (*live, *taps)


def check_stages(backbone: StagedBackbone, inputs: tuple[Tensor, ...]) -> None:
    """Chain the graphs of all stages, each fed with what torch's stages gave."""
    live: tuple[Tensor, ...] = inputs
    for stage in cast(list[Stage], list(backbone.stages)):
        module = Flat(stage)
        with torch.no_grad():
            expected = module(*live)
            given, _ = stage(live)
        names = [f"in{i}" for i in range(len(live))], [f"out{i}" for i in range(len(expected))]
        graph = onnx_graph(module, live, *names)
        for rows in (1, 3, 32):
            some = torch.arange(rows) % len(inputs[0])
            for got, want in zip(answers(graph, [t[some] for t in live]), expected, strict=True):
                difference = np.abs(got - want[some].numpy()).max()
                assert difference <= 1e-4 * float(want.abs().max())
        live = cast(tuple[Tensor, ...], given)


NETWORKS = [
    ("torchvision:resnet18", 64, ["layer1.0.conv2", "layer3.0.relu_0"]),
    ("torchvision:inception_v3", 96, ["Mixed_5d.branch3x3dbl_2"]),
    ("torchvision:mobilenet_v3_large", 64, ["features.4.block.2", "features.12"]),
    ("torchvision:shufflenet_v2_x1_0", 64, ["stage3.1.getitem_1"]),
    ("torchvision:swin_t", 96, ["features.3.1.attn"]),
    ("timm:tf_efficientnet_lite0", 64, ["blocks.2.1.conv_dw"]),
    ("timm:ghostnet_100", 64, ["blocks.4.0.ghost1.primary_conv"]),
    ("timm:dla34", 64, ["level3.tree1.tree2.bn1"]),
    ("paper:resnet152", 64, ["paper:1", "paper:2"]),
    ("paper:densenet201", 64, ["paper:1", "paper:2"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "places"), NETWORKS, ids=[n[0] for n in NETWORKS])
def test_stages_of_backbones_answer_as_in_torch(name: str, size: int, places: list[str]) -> None:
    (images,) = drawn((3, size, size), rows=5)
    cuts = describe(name).cuts
    backbone = cut(build(name), [cuts.get(place, place) for place in places], images[:2])
    check_stages(backbone, (images,))


@pytest.mark.slow
def test_stages_with_two_inputs_and_a_value_as_output_answer_as_in_torch() -> None:
    inputs = tuple(drawn((3, 48, 64), (1, 96, 64), rows=4))
    net = build("paper:audiocsrnet", options={"height": 48, "width": 64})
    cuts = list(describe("paper:audiocsrnet").cuts.values())
    check_stages(cut(net, cuts, tuple(each[:2] for each in inputs)), inputs)
