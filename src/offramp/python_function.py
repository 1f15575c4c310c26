"""A function in a user's own Python file, named as `path/to/file.py:function`."""

import difflib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from offramp.errors import OfframpError, PlanError


def call_function(place: str, gives: str) -> object:
    """Run the file and call the function without arguments; whatever it returns is returned.

    The file's own folder can be imported from meanwhile, as when Python runs a script.

    Args:
        place: `path/to/file.py:function`.
        gives: What it should return, for messages.

    Raises:
        PlanError: No such file or function, or an error inside them.
    """
    path, function = _split(place, gives)
    with _importable(path.parent):
        try:
            return _function(_execute(path), path, function)()
        except OfframpError:
            raise
        except (Exception, SystemExit) as error:
            text = str(error).rstrip(".")
            raise PlanError(
                f"{place} failed with {type(error).__name__}: {text}. Run the file by itself to "
                "see where."
            ) from error


def short_name(place: str) -> str:
    """`file.py:function`, without the folder."""
    file, _, function = place.rpartition(":")
    return f"{Path(file).name}:{function}"


def _split(place: str, gives: str) -> tuple[Path, str]:
    file, colon, function = place.rpartition(":")
    if not colon or not function.isidentifier() or not file:
        raise PlanError(
            f"{place!r} does not name a function. Write path/to/file.py:function, where the "
            f"function takes no arguments and returns {gives}."
        )
    path = Path(file)
    if not path.is_file():
        raise PlanError(f"There is no file {path}, which {place!r} names. Check the path.")
    return path.resolve(), function


def _execute(path: Path) -> ModuleType:
    name = f"offramp_file_{sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PlanError(f"{path} is not a Python file. Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look there
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, path: Path, function: str) -> Callable[[], object]:
    found: Callable[[], object] | None = getattr(module, function, None)
    if callable(found):
        return found
    functions = [name for name, value in vars(module).items() if callable(value)]
    near = difflib.get_close_matches(function, functions, n=3, cutoff=0.3)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise PlanError(f"{path} has no function {function!r}.{hint}")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
