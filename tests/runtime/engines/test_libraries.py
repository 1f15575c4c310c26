import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import sys
from offramp.runtime.engines import open_engine
engine = open_engine(sys.argv[1])
import os
assert "ORT_DISABLE_TELEMETRY" not in os.environ
assert "openvino_telemetry" not in sys.modules
"""


@pytest.mark.parametrize("engine", ["onnxruntime"])
def test_an_engine_writes_nothing_into_the_home_folder(engine: str, tmp_path: Path) -> None:
    unset = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", WATCHED, engine]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
