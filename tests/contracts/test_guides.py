"""Code in the guides that is followed by its output prints exactly that."""

import re
from pathlib import Path

import pytest

GUIDES = sorted((Path(__file__).parents[2] / "docs/guides").glob("*.md"))
BLOCK = re.compile(r"```python\n(.*?)```\s+```text\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    ("code", "output"),
    [
        pytest.param(*pair, id=page.stem)
        for page in GUIDES
        for pair in BLOCK.findall(page.read_text())
    ],
)
def test_a_guide_shows_what_its_code_prints(
    code: str,
    output: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "guide", "exec"), {})  # noqa: S102  # that is the point
    assert capsys.readouterr().out == output
