import dataclasses
from pathlib import Path

import pytest

from offramp.errors import BundleError, PlanError, ShapeError
from offramp.policy import (
    ExitPolicy,
    PolicyMenu,
    Promise,
    PromiseWarning,
    find_score,
    policy_at,
)


def policy(limit: float, names: tuple[str, ...] = ("a", "b", "final")) -> ExitPolicy:
    return ExitPolicy(
        score=find_score("margin"),
        thresholds=(1 - limit, None),
        names=names,
        source={"engine": "torch", "precision": "float32", "model": "abc"},
        promise=Promise(
            goal="max_drop",
            limit=limit,
            confidence=0.9,
            method="ltt",
            num_samples=701,
            estimate=limit / 2,
        ),
    )


@pytest.fixture
def menu() -> PolicyMenu:
    return PolicyMenu((policy(0.01), policy(0.02), policy(0.05)), (0.005,))


@pytest.mark.parametrize(("asked", "got"), [(0.01, 0.01), (0.019, 0.01), (0.02, 0.02), (0.9, 0.05)])
def test_a_menu_chooses_the_loosest_policy_within_the_limit(
    menu: PolicyMenu, asked: float, got: float
) -> None:
    promise = menu.at(asked).promise
    assert promise is not None
    assert promise.limit == got


def test_a_limit_below_all_is_refused_with_those_available(menu: PolicyMenu) -> None:
    with pytest.raises(PlanError, match=r"\[0.01, 0.02, 0.05\], and \[0.005\] could not"):
        menu.at(0.005)


def test_a_single_policy_is_not_called_a_menu_when_it_promises_too_little() -> None:
    with pytest.raises(PlanError, match=r"the policy promises 0\.05, and 0\.01 was asked for"):
        policy_at((policy(0.05),), 0.01)


def test_a_menu_is_restored_from_its_file(menu: PolicyMenu, tmp_path: Path) -> None:
    menu.save(tmp_path / "menu.json")
    again = PolicyMenu.load(tmp_path / "menu.json")
    assert again.as_json() == menu.as_json()
    assert again.limits == menu.limits == (0.01, 0.02, 0.05)
    assert len(again) == 3
    assert [str(each) for each in again] == [str(each) for each in menu]


def test_a_file_that_is_not_a_menu_is_refused(menu: PolicyMenu, tmp_path: Path) -> None:
    menu.at(0.02).save(tmp_path / "policy.json")
    with pytest.raises(BundleError, match="expected schema 'offramp policy menu 1'"):
        PolicyMenu.load(tmp_path / "policy.json")
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be read as a menu"):
        PolicyMenu.load(tmp_path / "torn.json")
    with pytest.raises(BundleError, match="Calibrate again"):
        PolicyMenu.from_json({"schema": "offramp policy menu 1"})


def test_promises_are_dropped_for_another_source(menu: PolicyMenu) -> None:
    same = {"engine": "torch", "precision": "float32", "model": "abc"}
    assert all(each.promise for each in menu.on(same))
    with pytest.warns(PromiseWarning, match="precision"):
        assert not any(each.promise for each in menu.on({**same, "precision": "bfloat16"}))


def test_a_menu_prints_its_policies_and_declined_limits(menu: PolicyMenu) -> None:
    assert "at most 2 points" in str(menu)
    assert "not certified: 0.005" in str(menu)


def test_a_menu_of_unsuitable_policies_is_refused() -> None:
    with pytest.raises(PlanError, match="limits of a menu must increase"):
        PolicyMenu((policy(0.02), policy(0.01)))
    with pytest.raises(PlanError, match="promises of the same goal"):
        PolicyMenu((dataclasses.replace(policy(0.02), promise=None),))
    with pytest.raises(PlanError, match="promises of the same goal"):
        PolicyMenu(())
    with pytest.raises(ShapeError, match="same exits"):
        PolicyMenu((policy(0.01), policy(0.02, ("a", "c", "final"))))
