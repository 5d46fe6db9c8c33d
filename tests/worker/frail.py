"""An application whose machine is healthy as long as no file named `unfit` lies beside its store."""

import errno
import os
import time
from pathlib import Path

from penstock import Penstock

#: Names the folder where the files lie that say what is wrong, if not beside the store.
PLACE = "PENSTOCK_TEST_PLACE"

app = Penstock("sqlite:///frail.db")
app.classify(ConnectionError, "dependency:smtp")
app.dependency("smtp", after=3, pause="200ms", longest_pause="400ms")


def beside(name: str) -> Path:
    folder = os.environ.get(PLACE)
    return Path(folder, name) if folder else Path(app.settings.url.removeprefix("sqlite:///")).with_name(name)


@app.health_check
def no_file_says_unfit() -> str | None:
    said = beside("unfit")
    return said.read_text() if said.exists() else None


@app.task(max_attempts=1)
def write(number: int) -> int:
    if beside("full").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return number


@app.task(max_attempts=3, backoff="10ms")
def send(number: int) -> int:
    if beside("down").exists():
        raise ConnectionRefusedError("the mail server does not answer")
    return number


@app.task
def stay(gate: str) -> str:
    while not beside(gate).exists():
        time.sleep(0.01)
    return gate
