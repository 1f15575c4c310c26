import pytest
from pydantic import TypeAdapter, ValidationError

from offramp.branches import BranchSpec, ConvBranch, ShippedBranch, SLViT, key

SPECS: list[BranchSpec] = [
    SLViT(),
    SLViT(patch=2),
    SLViT(dim=16, heads=4),
    SLViT(layers=2),
    SLViT(last_residual=False),
    SLViT(final_norm=True),
    SLViT(mlp_activation="relu"),
    SLViT(hidden=64),
    SLViT(dropout=0.25),
    SLViT(dropout_place="last"),
    SLViT(activation="gelu"),
    SLViT(standardise=True),
    SLViT(error_predictor=True),
    ConvBranch(),
    ConvBranch(kernel=15, filters=10, padding=6),
    ConvBranch(dilation=2, padding=1),
    ConvBranch(layers=2),
    ConvBranch(layers=2, padding=(1, 0)),
    ConvBranch(layers=2, padding=(0, 1)),
    ConvBranch(pool=4),
    ConvBranch(pool="global"),
    ConvBranch(norm=True),
    ConvBranch(layers=0, pool="global"),
    ConvBranch(layers=0, pool=2),
]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (SLViT(), "slvit-p4-d32-h12"),
        (SLViT(dim=16, heads=4, standardise=True), "slvit-p4-d16-h4-std"),
        (ConvBranch(), "conv-k3-f16"),
        (ConvBranch(norm=True, error_predictor=True), "conv-k3-f16-bn-ep"),
        (ConvBranch(layers=2, padding=(1, 0), pool=4), "conv-k3-f16-l2-pad1.0-pool4"),
        (ConvBranch(layers=0, pool="global"), "pool"),
    ],
)
def test_a_label_reads_like_the_settings(spec: BranchSpec, name: str) -> None:
    assert spec.label() == name


def test_labels_and_keys_differ_where_settings_do() -> None:
    assert len({spec.label() for spec in SPECS}) == len(SPECS)
    assert len({key(spec) for spec in SPECS}) == len(SPECS)


def test_a_key_is_the_same_however_the_settings_were_given() -> None:
    assert key(SLViT(heads=4, patch=2)) == key(SLViT.model_validate({"patch": 2, "heads": 4.0}))
    assert key(SLViT()) == "ce392447ed177fac"  # weights start from it, and state is filed under it


class LaterConv(ConvBranch):
    """A convolutional branch with a setting that a later version might add."""

    stride: int = 1


def test_a_setting_added_later_with_a_default_moves_no_key() -> None:
    for settings in ({}, {"filters": 7, "pool": "global"}):
        assert key(LaterConv(**settings)) == key(ConvBranch(**settings))
    assert key(LaterConv(stride=2)) != key(ConvBranch())


def test_a_setting_given_at_its_default_changes_no_key() -> None:
    assert key(SLViT(patch=4, error_predictor=False)) == key(SLViT())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label())
def test_settings_survive_json_and_their_kind_says_which_they_are(spec: BranchSpec) -> None:
    adapter: TypeAdapter[ShippedBranch] = TypeAdapter(ShippedBranch)
    assert adapter.validate_json(spec.model_dump_json()) == spec


def test_an_unknown_kind_names_those_there_are() -> None:
    adapter: TypeAdapter[ShippedBranch] = TypeAdapter(ShippedBranch)
    with pytest.raises(ValidationError, match=r"'slvt'.*'slvit', 'conv'"):
        adapter.validate_python({"kind": "slvt"})
