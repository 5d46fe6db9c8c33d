"""An application whose machine is healthy as long as no file named `unfit` lies beside its store."""

import errno
import os
from pathlib import Path

from penstock import Penstock

app = Penstock("sqlite:///frail.db")


def beside(name: str) -> Path:
    return Path(app.settings.url.removeprefix("sqlite:///")).with_name(name)


@app.health_check
def no_file_says_unfit() -> str | None:
    said = beside("unfit")
    return said.read_text() if said.exists() else None


@app.task(max_attempts=1)
def write(number: int) -> int:
    if beside("full").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return number
