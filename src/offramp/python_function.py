"""A function in a user's own Python file, named as `path/to/file.py:function`."""

import difflib
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from offramp.errors import OfframpError, PlanError


@dataclass(frozen=True)
class _Executed:
    """A file that was executed.

    Attributes:
        draws: Whether the execution seeded the global random generators, or drew from them.
        called: Functions of the module that were called.
    """

    module: ModuleType
    draws: bool
    called: set[str] = field(default_factory=set)

    def can_call(self, function: str) -> bool:
        """Whether the function would return the same after another execution.

        A second call might return the same object again. Where an execution sets the random
        generators, what a function returns may depend on that.
        """
        return not self.draws and function not in self.called


_KNOWN: ContextVar[dict[tuple[Path, bytes], _Executed] | None] = ContextVar("known", default=None)


@contextmanager
def executed_once() -> Iterator[None]:
    """In this block a file is executed once, not for each function in it that is called.

    It is executed again if it has changed, if the same function is called again, or if it sets the
    global random generators, so that functions return what they would return otherwise.
    """
    token = _KNOWN.set({})
    try:
        yield
    finally:
        _KNOWN.reset(token)


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
            return _function(_module(path, function), path, function)()
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


def _module(path: Path, function: str) -> ModuleType:
    """The module of a file, executed for this function or for another one before."""
    known = _KNOWN.get()
    if known is None:
        return _execute(path)
    key = (path, sha256(path.read_bytes()).digest())
    found = known.get(key)
    if found is None or not found.can_call(function):
        before = _random_states()
        module = _execute(path)
        found = known[key] = _Executed(module, before != _random_states())
    found.called.add(function)
    return found.module


def _random_states() -> tuple[Any, ...]:
    """States of the global random generators that a file might use."""
    torch = sys.modules.get("torch")
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002  (a file may use it)
    mersenne = state.pop("state")
    return (
        random.getstate(),
        (state, mersenne["key"].tobytes(), mersenne["pos"]),
        None if torch is None else torch.get_rng_state().numpy().tobytes(),
    )


class _AsItIs(SourceFileLoader):
    """Compiles a file as it is now, and leaves no bytecode beside it.

    Python's own bytecode is found again after a change within the same second to the same size.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _execute(path: Path) -> ModuleType:
    if path.suffix != ".py":
        raise PlanError(f"{path} is not a Python file. Its name must end in .py.")
    name = f"offramp_file_{sha256(str(path).encode()).hexdigest()[:16]}"
    loader = _AsItIs(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True  # gives the module its __file__
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look there
    loader.exec_module(module)
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
