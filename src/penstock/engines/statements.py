"""Files of SQL: each statement under a line that names it."""

import re
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def read_statements(package: str | None, file: str) -> dict[str, str]:
    """Give the statements of a file beside a package's modules by name, without their comments."""
    text = (resources.files(package or "") / file).read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return {name: _bare(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _bare(body: str) -> str:
    return "\n".join(line for line in body.splitlines() if line and not line.startswith("--"))
