"""A worker that was started by hand, and its terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.polling import await_true
from tests.worker.harness import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.lonely]

_BY_HAND = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "nohup" else signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "penstock", "worker", *sys.argv[2:]])
"""


@pytest.mark.parametrize("way", ["plain", "nohup"])
def test_worker_ends_with_its_terminal_unless_started_by_nohup(tmp_path: Path, way: str) -> None:
    log = tmp_path / "log"
    terminal, its_end = pty.openpty()
    words = [way, "-A", "tests.worker.jobs:app", "--url", f"sqlite:///{tmp_path}/store.db", "--processes", "1"]
    with log.open("w") as written:
        worker = subprocess.Popen(
            [sys.executable, "-c", _BY_HAND, *words],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            stdin=its_end,
            stderr=written,
            start_new_session=True,
        )
    os.close(its_end)
    try:
        await_true(lambda: "1 processes" in log.read_text())
        os.close(terminal)
        if way == "nohup":
            await_true(lambda: "processes are replaced one by one" in log.read_text())
            assert worker.poll() is None
        else:
            assert worker.wait(20) == 0
            assert "stopping (its terminal has gone)" in log.read_text()
    finally:
        worker.kill()
        worker.wait(20)
