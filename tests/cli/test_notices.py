"""Warnings and log records as the command line shows them."""

import logging
import warnings

import pytest

from offramp.cli.notices import be_quiet, shown_warnings
from offramp.errors import OfframpWarning


def raised(*, debug: bool, quiet: bool = False) -> None:
    be_quiet(quiet)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])  # pytest's own hide what Python prints
        with shown_warnings(debug):
            for _ in range(2):
                warnings.warn("the labels look permuted.", OfframpWarning, stacklevel=1)
            warnings.warn("this will change in torch 9", DeprecationWarning, stacklevel=1)
            logging.getLogger("offramp.features").warning("the cache %s is damaged.", "c")
            logging.getLogger("offramp.features").info("resuming at sample %d", 64)
            logging.getLogger("matplotlib").warning("building the font cache")
    be_quiet(False)


def test_our_warnings_are_a_line_each_once_and_others_are_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    raised(debug=False)
    assert capsys.readouterr() == (
        "",
        "warning: the labels look permuted.\n"
        "warning: the cache c is damaged.\n"
        "resuming at sample 64\n",
    )


def test_warnings_of_other_packages_are_shown_when_debugging(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: shown.append(message))
    raised(debug=True)
    assert list(map(str, shown)) == ["this will change in torch 9"]


def test_warnings_are_shown_even_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    raised(debug=False, quiet=True)
    assert capsys.readouterr().err.splitlines() == [
        "warning: the labels look permuted.",
        "warning: the cache c is damaged.",
    ]


def test_filters_and_handlers_are_put_back() -> None:
    ours, everything = logging.getLogger("offramp"), logging.getLogger()
    before = (ours.handlers[:], ours.level, everything.handlers[:], warnings.filters[:])
    with shown_warnings(debug=False):
        pass
    assert (ours.handlers, ours.level, everything.handlers, warnings.filters) == before
