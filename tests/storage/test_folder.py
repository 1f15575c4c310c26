"""A change of a stored folder, seen from every moment at which it could have been killed."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offramp.errors import BundleError
from offramp.storage.folder import changing, owner_of, read_folder
from offramp.storage.manifest import BACKBONE, MANIFEST, RUN, FolderKind

MomentsOf = Callable[[Path, Callable[[], object]], list[Path]]
WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


def write(folder: Path, state: str, files: tuple[str, ...]) -> None:
    with changing(folder, RUN, {"state": state}) as staged:
        for name in files:
            (staged / name).parent.mkdir(exist_ok=True)
            (staged / name).write_text(f"{state} {name}")


def state_of(folder: Path) -> str:
    """The state of a folder, after checking that every file belongs to it."""
    names = read_folder(folder, RUN).manifest["files"]
    contents = read_folder(folder, RUN, names)
    state: str = contents.manifest["state"]
    expected = {name: f"{state} {name}".encode() for name in names}
    assert dict(contents.files) == expected
    return state


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write(folder, "old", ("a", "outputs/b", "dropped"))
    (folder / "mine").write_text("not ours")
    return folder


def test_a_change_replaces_kept_dropped_and_foreign_files_as_it_says(old: Path) -> None:
    with changing(old, RUN, {"state": "new"}, keep=["a", "absent"]) as staged:
        (staged / "c").write_text("new c")
    assert set(read_folder(old, RUN).manifest["files"]) == {"a", "c"}
    assert (old / "a").read_text() == "old a"
    assert not (old / "dropped").exists()
    assert (old / "mine").read_text() == "not ours"


def test_a_change_without_content_adds_files_and_keeps_the_rest(old: Path) -> None:
    with changing(old, RUN) as staged:
        (staged / "policy.json").write_text("{}")
    contents = read_folder(old, RUN, ["policy.json", "a"], ["absent"])
    assert contents.manifest["state"] == "old"
    assert contents.files == {"policy.json": b"{}", "a": b"old a"}


@pytest.mark.parametrize("name", ["a", "outputs/b", MANIFEST])
def test_a_file_of_the_same_name_that_no_manifest_lists_is_not_overwritten(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"name": "mine"}')
    with pytest.raises(BundleError, match=rf"contains {name}, which would be overwritten"):
        write(tmp_path, "first", ("a", "outputs/b"))
    assert (tmp_path / name).read_text() == '{"name": "mine"}'
    assert not (tmp_path / ".next").exists()
    (tmp_path / name).rename(tmp_path / "elsewhere")
    write(tmp_path, "first", ("a", "outputs/b"))
    assert state_of(tmp_path) == "first"


def test_a_kill_at_any_moment_of_a_change_leaves_the_old_state_or_the_new(
    old: Path, moments_of: MomentsOf
) -> None:
    moments = moments_of(old, lambda: write(old, "new", ("a", "outputs/b", "extra/c")))
    states = [state_of(moment) for moment in moments]
    switch = states.index("new")
    assert set(states[:switch]) == {"old"}
    assert set(states[switch:]) == {"new"}
    assert switch > 5
    assert len(states) - switch > 5
    for moment in moments:
        write(moment, "third", ("a",))
        left = {path.name for path in moment.iterdir()}
        assert left - {".lock"} == {"a", "mine", "outputs", MANIFEST} | (left & {"extra"})
        assert state_of(moment) == "third"


def test_a_first_change_that_was_killed_leaves_no_run_or_a_whole_one(
    tmp_path: Path, moments_of: MomentsOf
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    moments = moments_of(folder, lambda: write(folder, "first", ("a", "b/c")))
    seen = []
    for moment in moments:
        try:
            seen.append(state_of(moment))
        except BundleError as error:
            assert "is not a finished run" in str(error)  # noqa: PT017 either may come
            seen.append("none")
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {"none", "first"}


def test_an_error_while_writing_leaves_the_old_state_and_nothing_else(old: Path) -> None:
    before = sorted(old.rglob("*"))

    def fail() -> None:
        with changing(old, RUN, {"state": "new"}) as staged:
            (staged / "a").write_text("new a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert state_of(old) == "old"
    assert sorted(old.rglob("*")) == before


def _alternate(folder: Path, times: int) -> None:
    for number in range(times):
        write(folder, f"state {number % 2}", ("a", "outputs/b", f"only in {number % 2}"))


def test_a_reader_never_sees_a_mix_while_another_process_writes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _alternate(folder, 1)
    writer = multiprocessing.get_context("spawn").Process(target=_alternate, args=(folder, 60))
    writer.start()
    seen = set()
    while writer.is_alive():
        contents = read_folder(folder, RUN, ["a", "outputs/b"])
        state = contents.manifest["state"]
        assert contents.files["a"] == f"{state} a".encode()
        assert contents.files["outputs/b"] == f"{state} outputs/b".encode()
        seen.add(state)
    writer.join()
    assert writer.exitcode == 0
    assert seen == {"state 0", "state 1"}


def _write_and_die(folder: Path, operation: int) -> None:
    left = [operation]

    def count(event: str, args: tuple[Any, ...]) -> None:
        if event in WATCHED and str(folder) in str(args[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    write(folder, "new", ("a", "outputs/b"))


@pytest.mark.slow
def test_processes_killed_at_every_operation_leave_one_state(old: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for operation in range(1, 200, 3):
        folder = tmp_path / str(operation)
        shutil.copytree(old, folder)
        process = context.Process(target=_write_and_die, args=(folder, operation))
        process.start()
        process.join()
        assert state_of(folder) in ("old", "new")
        if process.exitcode == 0:
            break
    assert operation > 20


def test_any_changed_byte_is_refused_with_advice_for_that_file(old: Path) -> None:
    for name in ("a", "outputs/b"):
        path, whole = old / name, (old / name).read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            with pytest.raises(BundleError, match="was changed or damaged") as caught:
                read_folder(old, RUN, [name])
            assert str(caught.value).endswith(RUN.remedy(name))
        path.write_bytes(whole)
    assert "offramp evaluate" in RUN.remedy("outputs/b")


def test_a_missing_or_unlisted_file_is_named(old: Path) -> None:
    with pytest.raises(BundleError, match="lists no file 'other'"):
        read_folder(old, RUN, ["other"])
    (old / "a").unlink()
    with pytest.raises(BundleError, match="/a cannot be read"):
        read_folder(old, RUN, ["a"])


def test_a_folder_without_manifest_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a finished run"):
        read_folder(tmp_path, RUN)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no folder .*nope"):
        read_folder(tmp_path / "nope", RUN)


def test_a_folder_of_another_kind_or_version_is_refused(old: Path) -> None:
    later = FolderKind("run", RUN.schema + 1, RUN.missing, RUN.remedies)
    with pytest.raises(BundleError, match=rf"'offramp run {RUN.schema}'.*reads 'offramp run"):
        read_folder(old, later)


def test_a_run_that_cannot_be_written_is_still_read(old: Path) -> None:
    before = hashlib.sha256((old / MANIFEST).read_bytes()).hexdigest()
    old.chmod(0o500)
    try:
        assert state_of(old) == "old"
    finally:
        old.chmod(0o700)
    assert hashlib.sha256((old / MANIFEST).read_bytes()).hexdigest() == before


@pytest.mark.parametrize(
    ("name", "owned"),
    [
        *[(name, True) for name in ("a", "outputs/b", MANIFEST, "kept free")],
        *[(name, False) for name in ("mine", "outputs/c", "../a", "a/b", ".")],
    ],
)
def test_a_folder_owns_what_its_manifest_lists_and_what_is_reserved(
    old: Path, monkeypatch: pytest.MonkeyPatch, name: str, owned: bool
) -> None:
    monkeypatch.chdir(old.parent)
    expected = old if owned else None
    assert owner_of(old / name, RUN, ["kept free"]) == expected
    assert owner_of(Path("run") / name, RUN, ["kept free"]) == expected


def test_a_folder_of_another_kind_owns_no_files(old: Path) -> None:
    assert owner_of(old / "a", BACKBONE) is None
    (old / MANIFEST).write_text('{"name": "my web page"}')
    assert owner_of(old / "a", RUN, ["a"]) is None
