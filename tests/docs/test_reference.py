"""Pages that say what the code says are made from the code."""

import subprocess
import sys
from pathlib import Path

from penstock.model.states import picture

ROOT = Path(__file__).parents[2]


def test_reference_is_what_the_code_says() -> None:
    run = subprocess.run(
        [sys.executable, "tools/make_reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_picture_of_the_states_is_drawn_from_the_table() -> None:
    page = (ROOT / "docs/explanation/life-of-a-job.md").read_text()
    assert f"```mermaid\n{picture().rstrip()}\n```" in page
