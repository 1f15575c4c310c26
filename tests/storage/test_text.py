import pytest

from offramp.storage.text import decode_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_with_and_without_a_byte_order_mark(encoding: str) -> None:
    assert decode_text("naïve, 1\n".encode(encoding)) == "naïve, 1\n"


def test_text_in_another_encoding_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_text("naïve".encode("latin-1"))
