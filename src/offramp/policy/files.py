"""Policy files: JSON with a schema."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp.arguments import as_path
from offramp.errors import BundleError
from offramp.storage.atomic import write_bytes


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a JSON file.

    Raises:
        BundleError: The file cannot be written.
    """
    text = json.dumps(content, indent=1, allow_nan=False)
    write_bytes(as_path(path, "path"), (text + "\n").encode())


def read_json(source: Path | str | bytes, what: str) -> Any:
    """Read a JSON file, or its content as bytes; `what` describes it in errors.

    Raises:
        BundleError: The file does not exist, or is not JSON.
    """
    path = "what the run holds" if isinstance(source, bytes) else as_path(source, "path")
    try:
        return json.loads(source if isinstance(source, bytes) else Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} cannot be read as {what}: {error}. Use a file saved from the result of "
            "`calibrate`, or written by `offramp calibrate`."
        ) from error


def check_schema(content: object, schema: str, remedy: str = "calibrate again") -> None:
    """Check the schema of a file's content.

    Raises:
        BundleError: The schema is missing or different.
    """
    found = content.get("schema") if isinstance(content, Mapping) else None
    if found != schema:
        raise BundleError(
            f"expected schema {schema!r}, found {found!r}. Use a file with the expected schema, or "
            f"{remedy}."
        )
