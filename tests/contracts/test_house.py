"""Rules of the house that no linter checks."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
CODE = [
    *SOURCES,
    *(p for d in ("tests", "tools", "examples", "benchmarks") for p in (ROOT / d).rglob("*.py")),
]
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".cff", ""}
NO_NOUNS = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc"}
OF_THEIR_MODULE = {"anytime", "calibrate", "quality", "tradeoff"}  # docs/design.md says why


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions and classes at the top of a file, and public methods of such classes."""
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                methods = (n for n in node.body if isinstance(n, ast.FunctionDef))
                yield from (n for n in methods if not n.name.startswith("_"))


def is_overload_or_override(node: ast.FunctionDef | ast.ClassDef) -> bool:
    names = {getattr(d, "id", getattr(d, "attr", "")) for d in node.decorator_list}
    return bool(names & {"overload", "override", "setter"})


def test_no_source_file_asserts() -> None:
    asserts = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Assert)
    ]
    assert asserts == []


TEXT_METHODS = {"read_text", "write_text"}
OPENERS = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "TextIOWrapper"}
OF_BYTES = {("Image", "open"), ("os", "open"), ("tarfile", "open")}


def opens_text(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes text in the encoding of the locale."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = {keyword.arg for keyword in call.keywords}
    if (
        "encoding" in given
        or (getattr(getattr(call.func, "value", None), "id", ""), name) in OF_BYTES
    ):
        return False
    if name in TEXT_METHODS:
        return len(call.args) <= (name == "write_text")
    modes = [node for node in ast.walk(call) if isinstance(node, ast.Constant)]
    return name in OPENERS and not any(re.fullmatch("[rwax]b[+]?", str(m.value)) for m in modes)


def test_no_source_file_reads_or_writes_text_in_the_encoding_of_the_locale() -> None:
    texts = [
        f"{name_of(path)}:{node.lineno}"
        for path in CODE
        if path.relative_to(ROOT).parts[0] != "tests"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and opens_text(node)
    ]
    assert texts == []


def test_no_source_file_is_longer_than_350_lines() -> None:
    assert [name_of(p) for p in SOURCES if len(p.read_text().splitlines()) > 350] == []


def test_a_source_file_starts_with_a_sentence_on_what_it_is() -> None:
    starts = {p: (ast.get_docstring(parsed(p)) or "") for p in SOURCES}
    silent = [p for p, text in starts.items() if not text.split("\n\n")[0].endswith((".", ":"))]
    assert [name_of(path) for path in silent] == []


def test_every_public_function_and_class_says_what_it_does() -> None:
    silent = [
        f"{name_of(path)}: {node.name}"
        for path in SOURCES
        for node in definitions(path)
        if not ast.get_docstring(node) and not is_overload_or_override(node)
    ]
    assert silent == []


def test_no_file_is_named_after_no_noun() -> None:
    assert [name_of(path) for path in CODE if path.stem.lstrip("_") in NO_NOUNS] == []


def test_no_module_has_a_public_function_of_its_own_name() -> None:
    named = {
        name_of(path)
        for path in SOURCES
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef) and node.name == path.stem
        if node.name not in OF_THEIR_MODULE
    }
    assert named == set()


def mirrors(test: Path) -> bool:
    """Whether `test_b.py` or `test_b_more.py` has its module, or `a/test_c.py` its package a."""
    if len(test.parts) > 1:
        return (ROOT / "src/offramp" / test.parent).is_dir()
    noun = test.stem.removeprefix("test_")
    stems = {path.stem for path in (ROOT / "src/offramp").iterdir() if path.suffix != ".yaml"}
    return any(noun == stem or noun.startswith(f"{stem}_") for stem in stems)


def test_every_test_file_mirrors_a_source_file() -> None:
    tests = [path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")]
    free = ("contracts", "e2e", "paper", "tools", "benchmarks")
    assert [str(test) for test in tests if test.parts[0] not in free and not mirrors(test)] == []


def test_nothing_names_a_folder_of_one_persons_machine() -> None:
    places = re.compile(r"(?<![\w.])/(?:root|home|Users|work|farm)/")
    folders = ("src", "tests", "tools", "examples", "benchmarks", "docs", ".ci")
    texts = [
        *(p for d in folders for p in (ROOT / d).rglob("*") if p.is_file() and p.suffix in TEXT),
        *(p for p in ROOT.iterdir() if p.is_file() and p.suffix in TEXT - {""}),
    ]
    assert [name_of(path) for path in texts if places.search(path.read_text())] == []
