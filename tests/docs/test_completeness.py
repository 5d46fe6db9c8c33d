"""The reference names everything that can be used, and the README the packages that are."""

import re
import subprocess
import sys
import tomllib

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


def test_readme_names_the_packages_that_are_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = [re.split(r"[><=~!]", dependency)[0] for dependency in project["dependencies"]]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    used = {
        name for name in known if re.search(rf"^ *(?:from|import) {name.replace('-', '_')}\b", sources, re.MULTILINE)
    }
    told = re.search(r"it uses ([\w, -]+?), and the others", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert told is not None
    assert set(re.split(r", | and ", told[1])) == used


@pytest.mark.parametrize("name", penstock.__all__)
def test_reference_names_every_public_name(name: str) -> None:
    assert re.search(rf"\b{name}\b", reference())
