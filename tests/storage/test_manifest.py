from pathlib import Path

import pytest

from offramp.errors import BundleError
from offramp.storage.manifest import MANIFEST, read_file, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(bytes(range(7)))
    write_manifest(tmp_path, {"cuts": ["layer1"], "share": 0.25}, ["weights"])
    return tmp_path


def test_what_was_written_is_read_back(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert (manifest["cuts"], manifest["share"]) == (["layer1"], 0.25)
    assert read_file(folder, manifest, "weights") == bytes(range(7))


def test_any_changed_byte_of_the_manifest_is_refused(folder: Path) -> None:
    path = folder / MANIFEST
    whole = path.read_bytes()
    for place in range(len(whole)):
        for flip in (0x01, 0x20, 0xFF):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            with pytest.raises(BundleError, match=r"manifest\.json"):
                read_manifest(folder)


def test_any_changed_byte_of_a_file_is_refused(folder: Path) -> None:
    manifest = read_manifest(folder)
    for place in range(7):
        content = bytearray(range(7))
        content[place] ^= 0x10
        (folder / "weights").write_bytes(content)
        with pytest.raises(BundleError, match="weights was changed or damaged"):
            read_file(folder, manifest, "weights")


@pytest.mark.parametrize("cut_to", [0, 1, 30])
def test_a_truncated_manifest_is_refused(folder: Path, cut_to: int) -> None:
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes()[:cut_to])
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_manifest(folder)


def test_a_folder_without_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no run"):
        read_manifest(tmp_path)


def test_a_missing_or_unlisted_file_is_named(folder: Path) -> None:
    manifest = read_manifest(folder)
    with pytest.raises(BundleError, match="lists no file 'other'"):
        read_file(folder, manifest, "other")
    (folder / "weights").unlink()
    with pytest.raises(BundleError, match="weights cannot be read"):
        read_file(folder, manifest, "weights")
