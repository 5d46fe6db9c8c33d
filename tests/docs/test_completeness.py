"""The reference names everything that can be used."""

import re
import subprocess
import sys

import pytest

import penstock
from tests.docs.pages import ROOT
from tests.docs.place import environment

REFERENCE = ROOT / "docs" / "reference"


def reference() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(REFERENCE.glob("*.md")))


def commands() -> list[str]:
    """Read the names of the commands from `penstock --help`."""
    run = [sys.executable, "-m", "penstock", "--help"]
    told = subprocess.run(run, env=environment(ROOT), capture_output=True, text=True, check=True, timeout=30).stdout
    section = told.partition("Commands:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  (\w+) ", section, re.MULTILINE)


def test_help_lists_commands() -> None:
    assert {"worker", "jobs", "doctor"} <= set(commands())


def test_reference_names_every_command() -> None:
    told = reference()
    assert [name for name in commands() if not re.search(rf"\bpenstock {name}\b", told)] == []


@pytest.mark.parametrize("name", penstock.__all__)
def test_reference_names_every_public_name(name: str) -> None:
    assert re.search(rf"\b{name}\b", reference())
