"""Files of SQL: each statement under a line that names it."""

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def read_statements(file: Path) -> dict[str, str]:
    """Give the statements of a file by name, without their comments."""
    parts = _NAME.split(file.read_text(encoding="utf-8"))
    return {name: _bare(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _bare(body: str) -> str:
    return "\n".join(line for line in body.splitlines() if line and not line.startswith("--"))
