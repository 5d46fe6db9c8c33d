"""A copy of an example, with a worker in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copied(example: str, place: Path) -> Path:
    """Copy an example's files, so that what it writes stays out of the tree."""
    return shutil.copytree(
        ROOT / "examples" / example, place / example, ignore=shutil.ignore_patterns("*.db*", "__pycache__")
    )


def environment(**variables: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return {**own, "PYTHONPATH": str(ROOT / "src"), **variables}


@contextmanager
def working(folder: Path, **variables: str) -> Iterator[None]:
    """Run `penstock worker -A tasks:app` in a folder."""
    command = [sys.executable, "-m", "penstock", "worker", "-A", "tasks:app", "--processes", "1"]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=folder, env=environment(**variables), stdout=log, stderr=log)
    try:
        yield
        assert worker.poll() is None, (folder / "worker.log").read_text()
    finally:
        worker.terminate()
        worker.wait(30)
