"""What `pip install offramp` brings to an edge box, and that a bundle answers there."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch
from offramp.exporting import export
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import ModelInfo, Trial
from offramp.preprocess import ImagePreprocess
from offramp.run import OpenRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
WANTED = {
    "filelock",
    "numpy",
    "onnxruntime",
    "pillow",
    "pydantic",
    "pyyaml",
    "rich",
    "safetensors",
    "typer",
}
ABSENT = {"einops", "matplotlib", "onnx", "onnxscript", "scipy", "timm", "torch", "torchvision"}
MOST_MEGABYTES = 250  # 192 were measured on Linux


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment into which offramp was installed, with no extra."""
    root = tmp_path_factory.mktemp("lean")
    build: list[str | Path] = [
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        root,
        ROOT,
    ]
    run(sys.executable, *build)
    (wheel,) = root.glob("offramp-*.whl")
    venv.create(root / "env", with_pip=True)
    python = root / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    return python


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_base_install_has_no_torch_and_no_scipy_and_is_small(python: Path) -> None:
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
    names = {each["name"].lower().replace("_", "-") for each in listed}
    assert names >= WANTED
    assert names & ABSENT == set()
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    files = [
        path
        for place in site.iterdir()
        if not place.name.startswith(("pip", "setuptools"))
        for path in (place, *place.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    ]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    assert megabytes < MOST_MEGABYTES


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MultiExit]:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    backbone = cut(network.eval(), ["1"], torch.zeros(1, 3, 9, 11))
    spec = ConvBranch(filters=2, hidden=3)
    trial = Trial("1", spec, 0, spec.build(backbone.features("1"), 4).eval(), (), 1, 1, 1)
    info = ModelInfo(None, (ImagePreprocess(height=9, width=11),), tuple("abcd"))
    model = MultiExit(backbone, {"1": trial}, [trial], info=info)
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    export(model, to=folder)
    return folder, model


def test_a_bundle_answers_there_as_the_model_does_here(
    python: Path, bundle: tuple[Path, MultiExit], tmp_path: Path
) -> None:
    folder, model = bundle
    pixels = np.random.default_rng(1).integers(0, 256, (13, 17, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    verb: list[str | Path] = [
        python.parent / "offramp",
        "run",
        folder,
        tmp_path / "a.png",
        "--json",
    ]
    for deadline in ([], ["--deadline-ms", "60000"]):
        [found] = json.loads(run(*verb, *deadline))["answers"]
        wanted = OpenRun(model).run(pixels)
        assert (found["exit"], found["class_name"]) == ("final", wanted.class_name)
        np.testing.assert_allclose(found["outputs"], wanted.outputs, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["tradeoff", "outputs.npz"], "offramp[calibrate]"),
        (["train", "plan.yaml"], "offramp[train]"),
    ],
)
def test_a_verb_that_needs_more_names_the_extra(python: Path, words: list[str], extra: str) -> None:
    command: list[str | Path] = [python.parent / "offramp", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 1
    assert extra in done.stderr
    assert "Traceback" not in done.stderr


def test_every_verb_has_a_help_page_there(python: Path) -> None:
    page = run(python.parent / "offramp", "--help")
    verbs = [line.split()[0] for line in page.partition("Commands:")[2].splitlines() if line]
    for verb in verbs:
        assert "Usage" in run(python.parent / "offramp", verb, "--help")
