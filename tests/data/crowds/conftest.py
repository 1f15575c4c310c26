from pathlib import Path

import pytest

SIZE = (56, 80)


@pytest.fixture
def crowds(tmp_path: Path) -> Path:
    """Stand-in files for DISCO, six examples in each split."""
    pytest.importorskip("soundfile")
    from stand_ins.disco import write  # it needs soundfile

    write(tmp_path / "disco", 6, seed=0, size=SIZE)
    return tmp_path / "disco"
