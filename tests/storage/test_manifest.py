import json
from pathlib import Path

import pytest

from offramp.errors import BundleError
from offramp.storage.manifest import RUN, opened, sealed

PATH = Path("somewhere/manifest.json")
RAW = sealed(RUN, {"cuts": ["layer1"], "share": 0.25}, {"weights": "12ab"})


def test_arrays_that_were_written_are_read_back() -> None:
    content = opened(RAW, PATH, RUN)
    assert (content["cuts"], content["share"]) == (["layer1"], 0.25)
    assert content["files"] == {"weights": "12ab"}


def test_any_changed_byte_is_refused() -> None:
    for place in range(len(RAW)):
        for flip in (0x01, 0x20, 0xFF):
            with pytest.raises(BundleError, match=r"manifest\.json"):
                opened(RAW[:place] + bytes([RAW[place] ^ flip]) + RAW[place + 1 :], PATH, RUN)


@pytest.mark.parametrize("cut_to", [0, 1, 30])
def test_a_truncated_manifest_is_refused(cut_to: int) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        opened(RAW[:cut_to], PATH, RUN)


def test_a_manifest_of_another_program_is_not_called_damaged() -> None:
    with pytest.raises(BundleError, match=r"not a manifest that offramp wrote. Choose another"):
        opened(b'{"name": "my web page"}', PATH, RUN)


@pytest.mark.parametrize("name", ["../weights", "/etc/weights", "a/../../b"])
def test_a_manifest_cannot_name_files_outside_its_folder(name: str) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        opened(sealed(RUN, {}, {name: "12ab"}), PATH, RUN)


def test_the_advice_fits_the_file() -> None:
    assert "offramp evaluate" in RUN.remedy("outputs/test.npz")
    assert "offramp calibrate" in RUN.remedy("policy.json")
    assert "except plan.yaml and work" in RUN.remedy("model.safetensors")


def test_a_manifest_is_plain_json_with_its_kind_and_version() -> None:
    assert json.loads(RAW)["format"] == "offramp run 2"
