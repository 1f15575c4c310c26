from pathlib import Path

import pytest

from offramp.backbones.staged import Cut
from offramp.errors import CutError
from offramp.run.plan import load_plan
from offramp.run.prepare import prepare_run

PLAN = """
backbone: {name: "paper:resnet152", num_outputs: 10}
data: {kind: fashion_mnist, image_size: 64, limit: 12}
branches:
  paper:1: [{kind: conv}]
"""


@pytest.mark.slow
def test_a_named_cut_of_the_backbone_can_be_a_key_of_branches(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    backbone = prepare_run(load_plan(path)).backbone
    assert backbone.cuts == ("paper:1",)
    assert backbone.places == (Cut("paper:1", ("layer2.0.conv1",), ("layer2.0.conv1",)),)


def test_a_named_cut_belongs_to_its_backbone_alone(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace("paper:resnet152", "timm:test_resnet"))
    with pytest.raises(CutError, match="no place 'paper:1'"):
        prepare_run(load_plan(path))
