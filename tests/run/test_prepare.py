from pathlib import Path

import numpy as np
import pytest

from offramp.backbones.staged import Cut
from offramp.data import Samples, Splits, as_samples
from offramp.data.splits import SPLIT_NAMES
from offramp.errors import CutError, DataError, KindError, PlanError
from offramp.preprocess.spectrogram import SPEECH_COMMANDS
from offramp.run.data import RunData
from offramp.run.plan import Plan, load_plan
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


def test_wrong_channels_are_one_mistake(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        PLAN.replace(
            '"paper:resnet152", num_outputs: 10', '"timm:test_resnet", options: {in_chans: 1}'
        ).replace("paper:1: [{kind: conv}]", "layer1: [{kind: conv}]\n  layer2: [{kind: conv}]")
    )
    with pytest.raises(PlanError) as caught:
        prepare_run(load_plan(path))
    assert str(caught.value) == (
        "the data has inputs of 3 channels, and the backbone's first convolution reads 1. Choose a "
        "backbone that reads 3; data of kind 'fashion_mnist' cannot be given 1."
    )


NETWORK = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(CHANNELS, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
STFT = "{window: 40, step: 20, fft: 64}"


def prepared(folder: Path, data: str, channels: int) -> None:
    """Prepare a plan for a network that reads this many channels."""
    (folder / "network.py").write_text(NETWORK.replace("CHANNELS", str(channels)))
    (folder / "plan.yaml").write_text(
        f"backbone: {{name: python}}\ndata: {data}\nbranches: {{'0': [{{kind: conv}}]}}\n"
    )
    prepare_run(load_plan(folder / "plan.yaml"), f"{folder / 'network.py'}:network")


@pytest.mark.parametrize(
    ("reads", "chain", "remedy"),
    [
        (1, f"[{STFT}], repeat: 3", "Give `data.chain` `repeat: 1`"),
        (3, f"[{STFT}]", "Give `data.chain` `repeat: 3`"),
        (3, f"[{STFT}, {STFT}]", "Give `data.chain` 3 channels"),
        (1, "", "Write out the chain that 'speech_commands' names, with `repeat: 1`"),
    ],
)
def test_wrong_channels_of_sounds_are_answered_for_sounds(
    tmp_path: Path, reads: int, chain: str, remedy: str
) -> None:
    own = f"{{rate: 8000, num_samples: 400, channels: {chain}}}" if chain else "speech_commands"
    with pytest.raises(PlanError) as caught:
        prepared(tmp_path, f"{{kind: sound_csv, file: none.csv, chain: {own}}}", reads)
    assert f"convolution reads {reads}. {remedy}, or choose" in str(caught.value)


def test_wrong_channels_of_pictures_are_answered_with_their_setting(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        prepared(tmp_path, "{kind: csv, file: none.csv}", 1)
    assert (
        "reads 1. Set `data.channels` to 1, with as many numbers in `mean` and `std`, or choose a "
        "backbone that reads 3."
    ) in str(caught.value)


def test_files_of_another_kind_are_one_mistake(tmp_path: Path) -> None:
    for place in range(4):
        (tmp_path / f"sounds/{place % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"sounds/{place % 2}/{place}.wav").touch()
    with pytest.raises(KindError, match=r"Use `kind: sound_folder`\.$"):
        prepared(tmp_path, f"{{kind: image_folder, root: {tmp_path / 'sounds'}, split: {{}}}}", 1)


SOUND = "{rate: 8000, num_samples: 400, channels: [{window: 40, step: 20, fft: 64}]}"


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        ("{kind: csv, file: FILE, value: people}", "set `data.sound` to a chain such as vggish"),
        (f"{{kind: sound_folder, root: FILE, chain: {SOUND}}}", "give data that has every input"),
    ],
)
@pytest.mark.parametrize("cut", ["V1", "AV1"])
def test_a_backbone_that_hears_needs_data_with_sounds(
    tmp_path: Path, cut: str, data: str, remedy: str
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        "task: regression\n"
        "backbone: {name: 'paper:audiocsrnet', options: {height: 48, width: 64}}\n"
        f"data: {data.replace('FILE', str(tmp_path))}\n"
        f"branches: {{{cut}: [{{kind: conv}}]}}\n"
    )
    with pytest.raises(PlanError) as caught:
        prepare_run(load_plan(path))
    text = str(caught.value)
    assert "the backbone reads 2 inputs (picture, sound), and data of kind" in text
    assert remedy in text


def test_a_plan_that_mirrors_spectrograms_is_refused() -> None:
    settings = {
        "backbone": {"name": "timm:test_resnet"},
        "data": {"kind": "python"},
        "branches": {"layer1": [{"kind": "conv"}]},
        "train": {"augment": {"flip": True, "views": 2}},
    }
    plan, parts = Plan.model_validate(settings), [samples(None, seed) for seed in range(4)]
    named = dict(zip(SPLIT_NAMES, parts, strict=True))
    chain = (SPEECH_COMMANDS.model_copy(update={"height": 33, "width": 32}),)
    with pytest.raises(PlanError, match="flip mirrors left and right, which would turn low"):
        prepare_run(plan, data=RunData(plan, Splits.of(named, target_names=(), inputs=chain)))
    prepare_run(plan, data=RunData(plan, Splits.of(named, target_names=())))


def samples(ids: list[str] | None, seed: int) -> Samples:
    values = np.random.default_rng(seed).normal(size=(3, 3, 33, 32))
    given = as_samples((values.astype(np.float32), np.array([0, 1, 1])))
    return Samples.of(given.source, ids=ids)


@pytest.mark.parametrize(
    ("ids", "seeds", "shared"),
    [
        ((list("abc"), list("cda")), (2, 3), "share 2 ids, such as a"),
        ((list("abc"), list("def")), (2, 3), None),
        ((None, None), (2, 2), "are the same"),
        ((None, None), (2, 3), None),
    ],
    ids=["shared ids", "own ids", "the same arrays", "other arrays"],
)
def test_calibration_samples_are_refused_as_test_samples_before_training(
    ids: tuple[list[str] | None, ...], seeds: tuple[int, int], shared: str | None
) -> None:
    settings = {"backbone": {"name": "timm:test_resnet"}, "data": {"kind": "python"}}
    plan = Plan.model_validate(settings | {"branches": {"layer1": [{"kind": "conv"}]}})
    parts = [
        samples(each, seed) for each, seed in zip((None, None, *ids), (0, 1, *seeds), strict=True)
    ]
    data = RunData(plan, Splits.of(dict(zip(SPLIT_NAMES, parts, strict=True)), target_names=()))
    if shared is None:
        assert prepare_run(plan, data=data).splits.test is parts[3]
    else:
        with pytest.raises(DataError, match=shared):
            prepare_run(plan, data=data)
