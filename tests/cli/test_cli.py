import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offramp import cli

PLAN = """
backbone: {name: "torchvision:squeezenet1_1", num_outputs: 10}
data: {kind: fashion_mnist, image_size: 48, limit: 70}
branches:
  features.4: [{kind: slvit, patch: 11, dim: 4, heads: 1}, {kind: conv, filters: 2}]
train: {lr: 1e-3, seeds: [0, 1], epochs: 1, batch_size: 35}
evaluate: {rival_sizes: [40], rival_images: 64, timing_repeats: 2, bootstrap_draws: 50}
"""


def offramp(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = "from offramp.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=120,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"},
    )


def test_help_imports_neither_torch_nor_numpy_nor_matplotlib() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from offramp.cli import app;"
        "result = CliRunner().invoke(app, ['--help']); assert result.exit_code == 0;"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "verb",
    [
        "demo",
        "cuts",
        "train",
        "evaluate",
        "runs",
        "tradeoff",
        "calibrate",
        "run",
        "simulate",
        "watch",
    ],
)
def test_every_verb_says_what_it_does(verb: str) -> None:
    result = CliRunner().invoke(cli.app, [verb, "--help"])
    assert result.exit_code == 0
    assert verb in result.output
    assert CliRunner().invoke(cli.app, [verb, "-h"]).output == result.output


def test_our_errors_exit_with_1_and_one_message(tmp_path: Path) -> None:
    done = offramp("tradeoff", str(tmp_path / "none.npz"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "none.npz" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = offramp("--debug", "tradeoff", str(tmp_path / "none.npz"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("verb", "opening", "says"),
    [
        ("train", "plan.yaml", "repeat the same command and it resumes"),
        ("train", "images-idx3-ubyte", "repeat the same command and it resumes"),
        ("evaluate", "manifest.json", "starts over"),
    ],
)
def test_a_stopped_command_says_what_repeating_it_does(
    tmp_path: Path, verb: str, opening: str, says: str
) -> None:
    pressed: list[str] = []

    def press_ctrl_c(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and opening in str(args[0]) and not pressed:
            pressed.append(verb)
            raise KeyboardInterrupt

    (tmp_path / "plan.yaml").write_text(PLAN)
    words = {"train": ["plan.yaml", "--out", "run"], "evaluate": ["run"]}[verb]
    (tmp_path / "run").mkdir()
    sys.addaudithook(press_ctrl_c)
    with contextlib.chdir(tmp_path):
        done = CliRunner().invoke(cli.app, [verb, *words])
    assert pressed == [verb]
    assert done.exit_code == 130
    assert says in done.stderr


def test_the_version_is_printed() -> None:
    assert offramp("--version").stdout.strip().startswith("offramp 0.")


def test_an_unfinished_run_is_distinguished_from_a_missing_one(tmp_path: Path) -> None:
    done = offramp("tradeoff", str(tmp_path))
    assert done.returncode == 1
    assert "repeat the same `offramp train` and it resumes" in " ".join(done.stderr.split())


def test_without_torch_the_missing_half_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    code = (
        "import sys; sys.modules['torch'] = None; from offramp.cli import main;"
        "sys.argv = ['offramp', 'train', 'plan.yaml', '--out', 'run']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: this needs torch: pip install 'offramp[train]'"


@pytest.mark.parametrize(
    "words",
    [
        ("train",),
        ("cuts",),
        ("cuts", "torchvision:resnet18", "--input", "foo"),
        ("cuts", "torchvision:resnet18", "--suggest", "abc"),
        ("cuts", "torchvision:resnet18", "--backbone", "file.py:function"),
    ],
)
def test_wrong_usage_exits_with_2(words: tuple[str, ...]) -> None:
    done = offramp(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_plan_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN.replace("epochs: 1", "epoch: 1"))
    done = offramp("train", "plan.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "train.epoch: no such setting, did you mean 'epochs'?" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_train_evaluate_and_tradeoff_as_a_user_runs_them(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    trained = offramp("train", "plan.yaml", "--out", "run", "--set", "train.epochs=2", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "features.4" in trained.stdout
    assert "no promise" in trained.stdout

    table = offramp("tradeoff", "run", "--json", cwd=tmp_path)
    assert [row["name"] for row in json.loads(table.stdout)["exits"]] == ["features.4", "final"]

    before = (tmp_path / "run" / "outputs" / "test.npz").read_bytes()
    again = offramp("evaluate", "run", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["comparison"]["samples"] == 70
    assert len((tmp_path / "run" / "outputs" / "test.npz").read_bytes()) == len(before)

    other = offramp("train", "plan.yaml", "--out", "run", cwd=tmp_path)
    assert other.returncode == 1
    assert "another plan" in other.stderr
