"""Standard streams that are closed, full, broken or lack letters, tried on processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLAIN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PUTS = "from offramp.cli.streams import prepare_streams, put; prepare_streams(); put({!r})"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which $python is this one."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],  # noqa: S607
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        env={**os.environ, "python": sys.executable, **environment},
    )


def test_the_package_runs_as_a_module() -> None:
    done = shell("$python -m offramp --version")
    assert done.stdout.startswith("offramp 0.")


def test_a_letter_that_the_locale_lacks_is_spelt_in_ascii() -> None:
    code = PUTS.format("91.5 ± 0.2 of čaj \udcff").encode("ascii", "backslashreplace").decode()
    done = shell(f'$python -c "{code}"', **PLAIN_ASCII)
    assert (done.stdout, done.stderr) == ("91.5 +/- 0.2 of \\u010daj \\udcff\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no full device")
@pytest.mark.parametrize("words", ["--version", "--help"])
def test_a_full_device_is_one_clear_error(words: str) -> None:
    done = shell(f"$python -m offramp {words} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device (--debug shows where)\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no full device")
def test_a_result_that_finds_no_room_says_what_to_do() -> None:
    done = shell(f'$python -c "{PUTS.format("result")}" > /dev/full')
    assert done.stderr.splitlines()[-1].endswith(
        "the result could not be written to standard output: No space left on device. Free some "
        "space, or send it elsewhere."
    )


def test_a_reader_that_has_gone_ends_the_command_without_a_word() -> None:
    code = (
        "import typer; from offramp import cli; from offramp.cli.streams import put; "
        "cli.app = typer.Typer(); cli.app.command()(lambda: [put('more' * 9999) for _ in 'ab' * 9])"
    )
    done = shell(f"""$python -c "{code}; cli.main()" | true""")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_never_becomes_a_file_that_is_opened_later(
    closed: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.bin"
    code = (
        "import os; from offramp.cli.streams import prepare_streams, put; prepare_streams(); "
        f"kept = open('{path}', 'wb'); put('result'); os.write(1, b'C'); os.write(2, b'C'); "
        "kept.write(b'data')"
    )
    assert shell(f'$python -c "{code}" {closed}').returncode == 0
    assert path.read_bytes() == b"data"
