from pathlib import Path

import pytest
import torch
from torch import Tensor

from offramp.backbones.zoo import build
from offramp.errors import PlanError


def python_file(folder: Path, text: str) -> str:
    (folder / "mine.py").write_text(text)
    (folder / "beside.py").write_text("CHANNELS = 5\n")
    return f"{folder / 'mine.py'}:make"


def test_a_python_file_gives_the_backbone_and_may_import_from_its_folder(tmp_path: Path) -> None:
    text = "from torch import nn\nfrom beside import CHANNELS\n\ndef make():\n"
    place = python_file(tmp_path, text + "    return nn.Conv2d(3, CHANNELS, 1)\n")
    model = build("python", backbone_file=place)
    answer: Tensor = model(torch.zeros(1, 3, 2, 2))
    assert answer.shape[1] == 5
    assert not model.training


@pytest.mark.parametrize(
    ("text", "function", "expected"),
    [
        ("def make(): return 3", "make", "returned a int"),
        ("def make(): return 3", "mke", "no function 'mke'. Nearest: make"),
        ("def make(): raise KeyError('layer')", "make", "failed with KeyError: 'layer'"),
        ("import no_such_module", "make", "failed with ModuleNotFoundError"),
    ],
)
def test_a_python_file_that_returns_no_module_is_refused(
    tmp_path: Path, text: str, function: str, expected: str
) -> None:
    place = python_file(tmp_path, text).replace(":make", f":{function}")
    with pytest.raises(PlanError, match=expected):
        build("python", backbone_file=place)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("mine.py", "does not name a function"), ("no.py:f", "There is no file")],
)
def test_a_place_that_names_no_python_function_is_refused(place: str, expected: str) -> None:
    with pytest.raises(PlanError, match=expected):
        build("python", backbone_file=place)
