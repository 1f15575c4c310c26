"""Files of policies: JSON with a schema that says what is in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp.errors import BundleError
from offramp.storage.atomic import write_bytes


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write one JSON file.

    Raises:
        BundleError: The file cannot be written.
    """
    text = json.dumps(content, indent=1, allow_nan=False)
    write_bytes(Path(path), (text + "\n").encode())


def read_json(source: Path | str | bytes, what: str) -> Any:
    """Read a JSON file, or what one holds, that should be `what`.

    Raises:
        BundleError: No such file, or no JSON.
    """
    path = "what the run holds" if isinstance(source, bytes) else source
    try:
        return json.loads(source if isinstance(source, bytes) else Path(source).read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} cannot be read as {what}: {error}. Name a file that `calibrate`'s result "
            "was saved to, or that `offramp calibrate` wrote."
        ) from error


def check_schema(content: object, schema: str, remedy: str = "calibrate again") -> None:
    """Refuse what is not of this schema.

    Raises:
        BundleError: It is something else.
    """
    found = content.get("schema") if isinstance(content, Mapping) else None
    if found != schema:
        raise BundleError(
            f"expected schema {schema!r}, found {found!r}. Pass what was saved as such, or "
            f"{remedy}."
        )
