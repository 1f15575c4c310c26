"""Imports of the libraries behind the engines, without the telemetry that they start.

From 1.29 on, ONNX Runtime's Linux builds write a device number below the home folder when they
are imported, and report sessions to their vendor. OpenVINO's Python package reports each import.
Neither happens here. A process that sets `ORT_DISABLE_TELEMETRY` itself, or that has imported the
library before, keeps what it chose.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import ModuleType
from typing import Any

from offramp.errors import ExtraError

_SWITCH = "ORT_DISABLE_TELEMETRY"
_importing = Lock()


def onnx_runtime() -> Any:
    """The module `onnxruntime`."""
    with _importing, _quiet_onnx_runtime():
        return _library("onnxruntime", "pip install --force-reinstall onnxruntime")


def openvino() -> Any:
    """The module `openvino`.

    Raises:
        ExtraError: It is not installed; the message names the extra.
    """
    with _importing, _without_module("openvino_telemetry"):
        return _library("openvino", "pip install 'offramp[openvino]'")


def _library(name: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a shared library of the system is missing
        raise ExtraError(
            f"running the graphs of a bundle with {name} needs that library, which cannot be "
            f"imported ({error}). Install it with: {remedy}"
        ) from error


@contextmanager
def _quiet_onnx_runtime() -> Iterator[None]:
    """Switch telemetry off while the library is imported, which is when it reads the switch."""
    if "onnxruntime" in sys.modules or _SWITCH in os.environ:
        yield
        return
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        del os.environ[_SWITCH]


@contextmanager
def _without_module(name: str) -> Iterator[None]:
    """Make an import of the module fail inside the block, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
