import gzip
from pathlib import Path

import numpy as np
import pytest

from offramp.data.images.idx import idx_bytes, read_idx
from offramp.errors import DataError

ARRAY = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.write_bytes(gzip.decompress(idx_bytes(ARRAY)))
    return path


def test_an_array_comes_back_from_a_gzipped_file(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(idx_bytes(ARRAY))
    np.testing.assert_array_equal(read_idx(path), ARRAY, strict=True)


def test_an_array_comes_back_from_a_plain_file(plain: Path) -> None:
    np.testing.assert_array_equal(read_idx(plain), ARRAY, strict=True)


def test_the_bytes_are_the_published_format() -> None:
    header = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 5])
    assert gzip.decompress(idx_bytes(ARRAY)) == header + bytes(range(30))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.gz does not exist"):
        read_idx(tmp_path / "absent.gz")


@pytest.mark.parametrize("keep", [1, 9, 20, 40])
def test_a_truncated_gzip_file_is_refused_and_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(idx_bytes(ARRAY)[:keep])
    with pytest.raises(DataError, match=r"images\.gz"):
        read_idx(path)


def test_no_flipped_byte_of_a_gzip_file_changes_what_is_read(tmp_path: Path) -> None:
    path, content = tmp_path / "images.gz", idx_bytes(ARRAY)
    refused = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            np.testing.assert_array_equal(read_idx(path), ARRAY)  # a byte of the time stamp, say
        except DataError as error:
            refused += 1
            assert "images.gz" in str(error)  # noqa: PT017
    assert refused > len(content) - 10  # gzip's header has 10 bytes, some of no consequence


def test_bytes_missing_at_the_end_are_counted(plain: Path) -> None:
    plain.write_bytes(plain.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"should hold 30 bytes for shape \(2, 3, 5\).* holds 23"):
        read_idx(plain)


def test_bytes_too_many_are_refused(plain: Path) -> None:
    plain.write_bytes(plain.read_bytes() + b"\0")
    with pytest.raises(DataError, match="holds 31"):
        read_idx(plain)


@pytest.mark.parametrize("start", [b"", b"\0\0\x08", b"\x89PNG\r\n", b"\0\0\x0d\x01\0\0\0\0"])
def test_a_file_of_another_format_is_refused(plain: Path, start: bytes) -> None:
    plain.write_bytes(start)
    with pytest.raises(DataError, match="not an IDX file of unsigned bytes"):
        read_idx(plain)


def test_a_file_that_ends_in_its_header_is_refused(plain: Path) -> None:
    plain.write_bytes(plain.read_bytes()[:11])
    with pytest.raises(DataError, match="ends inside its header"):
        read_idx(plain)
