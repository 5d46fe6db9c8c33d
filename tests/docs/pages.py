"""The documents, and the fenced blocks in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]

#: What is shown and not run; `toml` and `json` are parsed.
SHOWN = frozenset({"text", "ini", "dockerfile", "json", "toml", "sql", "html", "mermaid"})
RUN = frozenset({"python", "console"})

_FENCE = re.compile(r"^( *)(?:```|~~~)(.*)$")
_NOTE = re.compile(r"^ *<!-- test: (.*) -->$")
_FILE = re.compile(r"^# ([\w./-]+\.\w+)\n")
_STARTS_WORKERS = re.compile(r"\bpenstock (?:worker|dev|demo|bench)\b")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: of its first line in the document, from 1.
        note: what a comment `<!-- test: ... -->` right above it says, empty if there is none.
    """

    language: str
    text: str
    line: int
    note: str = ""

    @property
    def file(self) -> str | None:
        """The file it is to be written to, as its first line says."""
        found = _FILE.match(self.text)
        return found[1] if found else None


@dataclass(frozen=True)
class Page:
    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(_blocks(self.text))

    @property
    def prose(self) -> str:
        """Give the text without its blocks, line for line."""
        kept, inside = [], False
        for line in self.text.splitlines():
            fence = _FENCE.match(line)
            kept.append("" if fence or inside else line)
            inside = inside != bool(fence)
        return "\n".join(kept)

    @property
    def starts_workers(self) -> bool:
        return any(block.language == "console" and _STARTS_WORKERS.search(block.text) for block in self.blocks)


def documents() -> list[Page]:
    """Give every document that is written for people who use or change penstock."""
    names = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md")
    roots = [ROOT / name for name in names if (ROOT / name).exists()]
    return [Page(path) for path in [*roots, *sorted((ROOT / "docs").rglob("*.md"))]]


def _blocks(text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), 1))
    note = ""
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            found = _NOTE.match(line)
            note = found[1] if found else note if not line.strip() else ""
            continue
        inside = []
        for _, content in lines:
            if _FENCE.match(content):
                break
            inside.append(content)
        else:
            raise AssertionError(f"the block that begins in line {number} does not end")
        yield Block(fence[2].strip(), dedent("\n".join(inside)) + "\n", number + 1, note)
        note = ""
