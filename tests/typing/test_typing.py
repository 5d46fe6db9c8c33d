import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IGNORED = re.compile(r"  # type: ignore\[([a-z, -]+)\]")


def check(source: Path, cache: Path) -> list[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(cache), str(source)]
    environ = {"MYPYPATH": str(ROOT / "src"), "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        command, cwd=cache, env=environ, capture_output=True, text=True, check=False
    ).stdout.splitlines()


@pytest.mark.slow
def test_users_type_checkers_see_signatures_and_results(tmp_path: Path) -> None:
    """Every line marked with an error has exactly that error, and no other line has one."""
    text = (HERE / "enqueueing.py").read_text()
    snippet = tmp_path / "snippet.py"
    snippet.write_text(IGNORED.sub("", text))
    expected = {
        (number, code.strip())
        for number, line in enumerate(text.splitlines(), 1)
        for found in IGNORED.findall(line)
        for code in found.split(",")
    }
    told = [re.fullmatch(r"snippet\.py:(\d+): error: .*\[([a-z-]+)\]", line) for line in check(snippet, tmp_path)]
    assert {(int(one[1]), one[2]) for one in told if one} == expected
