"""The console command: Ctrl-C ends it with one line, whatever it is importing or doing."""

import os
import subprocess
import sys

import pytest

from tests.cli.desk import ROOT

#: Raises what Ctrl-C raises at the moment when a certain module is imported.
_INTERRUPTED = """
import sys
module, sys.argv[1:] = sys.argv[1], ["jobs", "list", "--url", "sqlite:////nowhere.db"]
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from penstock_console import main
main()
"""


@pytest.mark.parametrize("module", ["penstock", "msgspec", "click", "penstock.cli.main", "penstock.cli.jobs"])
def test_ctrl_c_while_a_command_is_still_imported_shows_no_traceback(module: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, module],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        timeout=20,
    )
    assert (run.returncode, run.stderr) == (130, "penstock: interrupted\n")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["jobs", "--help"], ["config"], ["config", "--json"]])
def test_output_that_nobody_reads_shows_no_traceback(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        timeout=20,
    )
    os.close(writing)
    assert run.stderr == ""
    assert run.returncode in (1, 141)
