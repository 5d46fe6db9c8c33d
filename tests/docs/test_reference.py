"""Pages that say what the code says are made from the code, and those that give figures from what was measured."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.model.states import picture

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("tool", ["make_reference", "make_performance"])
def test_page_is_what_its_tool_makes_of_its_source(tool: str) -> None:
    run = subprocess.run(
        [sys.executable, f"tools/{tool}.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_measured_figures_stand_in_the_tables_that_are_made_alone() -> None:
    page = (ROOT / "docs/explanation/performance.md").read_text()
    prose, tables = re.subn(r"<!-- (?:figures: .*?|facts) -->.*?<!-- end -->", "", page, flags=re.DOTALL)
    assert tables > 5
    assert re.findall(r"[\d.,]+ (?:jobs/s|µs|ms|MB|%|times)", prose) == []


def test_picture_of_the_states_is_drawn_from_the_table() -> None:
    page = (ROOT / "docs/explanation/life-of-a-job.md").read_text()
    assert f"```mermaid\n{picture().rstrip()}\n```" in page
