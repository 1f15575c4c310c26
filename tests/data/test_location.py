"""Where the data of a plan lies, and where it has moved to."""

from pathlib import Path

import pytest

from offramp.data import FashionMNIST, ImageFolder, ImageTable, PythonData
from offramp.data.location import located, paths_of
from offramp.errors import PlanError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [("photos", "photos"), ("~/photos", "home/photos"), ("~nobody-here/a", "~nobody-here/a")],
)
def test_paths_start_from_the_working_directory_and_know_the_home(
    given: str, expected: str, here: Path
) -> None:
    assert located(ImageFolder(root=Path(given))) == ImageFolder(root=here / expected)


def test_an_absolute_path_and_data_without_a_path_stay_as_they_are() -> None:
    for data in (ImageFolder(root=Path("/photos")), FashionMNIST(), PythonData()):
        assert located(data) == data
        assert located(located(data)) == data


def test_the_paths_are_those_settings_that_are_paths(here: Path) -> None:
    table = ImageTable(file=Path("a/labels.csv"), path="image")
    assert paths_of(table) == {"file": here / "a/labels.csv"}
    assert paths_of(PythonData()) == {}


NEW = Path("/new")


@pytest.mark.parametrize(
    ("data", "moved"),
    [
        (ImageFolder(root=Path("photos"), limit=3), ImageFolder(root=NEW, limit=3)),
        (FashionMNIST(), FashionMNIST(root=NEW)),
        (ImageTable(file=Path("a/x.csv")), ImageTable(file=NEW / "x.csv", root=NEW)),
        (
            ImageTable(file=Path("a/b/x.csv"), root=Path("a")),
            ImageTable(file=NEW / "b/x.csv", root=NEW),
        ),
        (
            ImageTable(file=Path("/c/x.csv"), root=Path("a")),
            ImageTable(file=Path("/c/x.csv"), root=NEW),
        ),
    ],
    ids=["folder", "shipped data", "table", "table inside its root", "table elsewhere"],
)
def test_another_root_takes_along_what_was_in_the_old_one(
    data: ImageFolder | ImageTable, moved: ImageFolder | ImageTable
) -> None:
    assert located(data, NEW) == moved


def test_another_root_is_relative_to_the_working_directory_too(here: Path) -> None:
    assert located(ImageFolder(root=Path("/old")), "~/new") == ImageFolder(root=here / "home/new")


def test_a_root_for_data_that_has_none_is_refused() -> None:
    with pytest.raises(PlanError, match="names no folder for data of kind 'python'"):
        located(PythonData(), NEW)
