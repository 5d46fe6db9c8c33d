"""The example `shop` does what its README says."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.place import copied, environment, working

pytestmark = pytest.mark.slow


def test_order_is_charged_mailed_and_pictured(tmp_path: Path) -> None:
    folder = copied("shop", tmp_path)
    with working(folder):
        run = subprocess.run(
            [sys.executable, "order.py"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
        )
    assert run.stderr == ""
    charged, receipt, thumbnail, stock, order_8 = run.stdout.splitlines()
    assert charged == "charged 19.99 for order 7"
    assert receipt == "receipt in outbox/receipt-7.eml"
    assert thumbnail == "thumbnail {'file': 'cat.small.ppm', 'width': 16, 'height': 12}"
    assert stock == "in stock {'north': 15, 'southern': 24}"
    assert order_8.startswith("order 8: ")
    assert "costs 0 cents" in order_8
    assert b"ada@example.org" in (folder / "outbox" / "receipt-7.eml").read_bytes()
    assert (folder / "cat.small.ppm").read_bytes().startswith(b"P6 16 12 255\n")


def test_buried_order_succeeds_after_it_was_mended_by_hand(tmp_path: Path) -> None:
    folder = copied("shop", tmp_path)
    penstock = [sys.executable, "-m", "penstock", "--url", "sqlite:///shop.db", "jobs"]
    program = "import tasks; job = tasks.charge_card.enqueue(8, 0); job.wait(30); print(job.id)"
    follow = "import sys, tasks; print(tasks.app.job(sys.argv[1]).result(30))"
    with working(folder):
        id = output(folder, [sys.executable, "-c", program]).strip()
        assert id in output(folder, [*penstock, "list", "--state", "buried"])
        output(folder, [*penstock, "edit", id, "--args", "[8, 500]"])
        assert output(folder, [sys.executable, "-c", follow, id]) == "charged 5.00 for order 8\n"


def output(folder: Path, command: list[str]) -> str:
    run = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout
