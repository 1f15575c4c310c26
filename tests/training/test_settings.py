import pytest

from offramp.errors import PlanError
from offramp.training.settings import TrainOptions, TrainSettings, read_settings


def test_the_defaults_are_the_paper_s() -> None:
    settings = read_settings([7], {})
    assert (settings.lr, settings.lr_factor, settings.batch_size) == (1e-4, 0.6, 64)
    assert (settings.lr_patience, settings.stop_patience) == (2, 5)
    assert settings.regression_loss == "mae"


def test_every_setting_but_the_seeds_can_be_given_by_keyword() -> None:
    assert {"seeds", *TrainOptions.__annotations__} == set(TrainSettings.model_fields)


def test_several_rates_are_written_and_read_back_as_they_are() -> None:
    settings = TrainSettings.model_validate({"lr": [3e-3, 1e-3]})
    written = settings.model_dump(mode="json")
    assert written["lr"] == [3e-3, 1e-3]
    assert TrainSettings.model_validate(written) == settings
    assert TrainSettings.model_validate({"lr": [3e-3]}) == TrainSettings(lr=3e-3)


def test_every_wrong_setting_is_reported_with_its_value() -> None:
    with pytest.raises(PlanError) as caught:
        read_settings([0], {"lr": -1.0, "epochs": 0, "epoch": 3})  # type: ignore[typeddict-unknown-key]
    for part in (
        "lr: ",
        "got -1.0",
        "epochs: ",
        "epoch: ",
        "Valid settings: profile, epochs",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(("seeds", "text"), [([], "at least one"), ([1, 2, 1], "twice")])
def test_seeds_are_some_and_distinct(seeds: list[int], text: str) -> None:
    with pytest.raises(PlanError, match=text):
        read_settings(seeds, {})


def test_seeds_cannot_be_batched_into_one_model_any_more() -> None:
    with pytest.raises(PlanError, match="batch_seeds: no such setting"):
        read_settings([0], {"batch_seeds": True})  # type: ignore[typeddict-unknown-key]
