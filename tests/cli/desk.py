"""What the tests of the command line share: commands run here or in a process of their own, and a filled store."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from penstock.cli.main import cli
from penstock.client import Penstock
from tests.client.hand import Hand

ROOT = Path(__file__).parents[2]
APP = "tests.cli.shop:app"
TASKS = ("shop.send", "shop.refuse", "shop.linger")


class Desk:
    """Commands on one store."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "shop.db"
        self.url = f"sqlite:///{self.file}"
        self.store = Penstock(self.url)

    def run(self, *words: str, input: str | None = None, **environment: str) -> Result:
        """Run a command here; fail when it ends in anything but an exit status."""
        kept: dict[str, str | None] = {name: None for name in os.environ if name.startswith("PENSTOCK_")}
        kept |= {"PENSTOCK_URL": self.url, "COLUMNS": "200", **environment}
        result = CliRunner().invoke(cli, words, input=input, env=kept, prog_name="penstock")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def done(self, *words: str, **more: Any) -> str:
        """Run a command that must succeed, and give what it wrote on stdout."""
        result = self.run(*words, **more)
        assert result.exit_code == 0, result.output
        return result.stdout

    def read(self, *words: str) -> Any:
        """Give the JSON document that a command writes."""
        return json.loads(self.done(*words, "--json"))

    def enqueue(self, task: str = "shop.send", *args: Any, **terms: Any) -> str:
        return self.store.using(**terms).enqueue(task, *args).id

    def hand(self) -> Hand:
        return Hand(self.store.engine, TASKS)

    def bury(self, message: str = "no order 7") -> str:
        """Give the id of a job that failed for good."""
        id = self.enqueue("shop.refuse", 7)
        hand = self.hand()
        for claim in hand.claim():
            hand.bury(claim, message)
        return id

    def state(self, id: str) -> str:
        return str(self.store.job(id).state())


def command(
    *words: str, folder: Path = ROOT, stdout: Any = subprocess.PIPE, **environment: str
) -> "subprocess.Popen[str]":
    """Start a command in a process of its own.

    Not unbuffered: writes to a pipe that is closed meanwhile would then seem to succeed.
    """
    dropped = ("PENSTOCK_", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-m", "penstock", *words],
        cwd=folder,
        env={**kept, "PYTHONPATH": path, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def working(url: str, *options: str) -> "Iterator[subprocess.Popen[str]]":
    """Have a worker of the shop for a while."""
    process = command("worker", "-A", APP, "--url", url, "--processes", "1", "--shutdown-timeout", "1s", *options)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)
