"""Wrong settings end in one PlanError, wherever a Spec is made."""

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from offramp import ConvBranch, SLViT
from offramp.data import DataSpec, ImageFolder, SoundFolder
from offramp.errors import OfframpError, PlanError
from offramp.spec import Spec, mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 0}, "SLViT has 1 mistake: patch: should be greater than 0 (got 0)"),
        ({"pach": 4}, "SLViT has 1 mistake: pach: no such setting, did you mean 'patch'?"),
        ({"zzz": 4}, "SLViT has 1 mistake: zzz: no such setting"),
        ({"mlp_activation": "tanh"}, "mlp_activation: should be 'relu' or 'gelu' (got 'tanh')"),
        ({"patch": "x" * 200}, f"(got '{'x' * 79}...)"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(message) + "$"):
        SLViT(**settings)


def test_all_mistakes_are_listed_a_line_each() -> None:
    with pytest.raises(PlanError, match=r"^SLViT has 2 mistakes:\n  patch: .*\n  dim: .*$"):
        SLViT(patch=0, dim=-1)


def test_a_rule_over_several_settings_has_its_own_message() -> None:
    with pytest.raises(PlanError, match=r"1 mistake: padding has 3 numbers for 2 layers"):
        ConvBranch(layers=2, padding=(1, 2, 3))


def test_a_mistake_inside_another_spec_is_named_by_its_path() -> None:
    with pytest.raises(PlanError, match=r"mistake: split\.test: should be less than 1 \(got 3\)"):
        ImageFolder(root="photos", split={"test": 3})


def test_it_is_both_an_offramp_error_and_a_value_error() -> None:
    assert issubclass(PlanError, OfframpError)
    assert issubclass(PlanError, ValueError)


def test_validation_of_a_mapping_keeps_pydantics_own_error_with_all_places() -> None:
    adapter: TypeAdapter[Spec] = TypeAdapter(DataSpec)
    given = {"kind": "image_folder", "root": "x", "limit": 0, "split": {"test": 2}}
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python(given)
    found = mistakes(caught.value, ImageFolder)
    assert [line.partition(": ")[0] for line in found] == [
        "image_folder.limit",
        "image_folder.split.test",
    ]


CHAIN = {"rate": 8, "num_samples": 9, "channels": [{"window": 5, "step": 2, "fft": 8}]}


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ([{"window": 5, "step": 0, "fft": 8}], "channels.0.step: should be greater than 0 (got 0)"),
        ([{"window": 9, "step": 1, "fft": 8}], "channels.0: fft is 8, but must be at least window"),
        ([1], "channels.0: write it as settings, `key: value` (got 1)"),
        ([], "channels: Tuple should have at least 1 item after validation, not 0"),
        (1, "channels: write a list, [{window: ..., step: ..., fft: ...}] (got 1)"),
    ],
)
def test_one_mistake_inside_a_list_is_one_mistake(channels: object, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        SoundFolder(root="x", chain={**CHAIN, "channels": channels})
    assert str(caught.value).startswith(f"SoundFolder has 1 mistake: chain.{expected}")


class Choice(Spec):
    data: DataSpec


def test_a_setting_of_another_kind_is_answered_with_the_kinds_that_have_it() -> None:
    with pytest.raises(
        PlanError,
        match=r"data\.csv\.chain: no such setting of this kind \(kinds .*"
        r"sound_csv, sound_folder",
    ):
        Choice(data={"kind": "csv", "file": "labels.csv", "chain": CHAIN})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "soundcsv",
            r"data: no such kind, did you mean 'sound_csv'\? \(got 'soundcsv'; there are ",
        ),
        ("zzz", r"data: no such kind \(got 'zzz'; there are "),
    ],
)
def test_an_unknown_kind_is_answered_with_the_nearest_or_all(kind: str, expected: str) -> None:
    with pytest.raises(PlanError, match=expected):
        Choice(data={"kind": kind})
