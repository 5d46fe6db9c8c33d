"""Where the servers' programs are, and the account that may run them; and where the model checker is."""

import glob
import os
import pwd
import shutil
from pathlib import Path


class ServerMissing(Exception):
    """A server's program is not installed; the message says how it gets there."""


def redis_server() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise ServerMissing("redis-server is not installed; `make servers` installs it, or says how.")
    return found


def postgres_program(name: str) -> str:
    """Give the path of one of PostgreSQL's programs, of the newest version there is."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(Path(path).parent.name), reverse=True)
    for folder in folders:
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    found = shutil.which(name)
    if found is None:
        raise ServerMissing(f"{name} of PostgreSQL is not installed; `make servers` installs it, or says how.")
    return found


def spin() -> str:
    found = shutil.which("spin")
    if found is None:
        raise ServerMissing("spin is not installed; `make servers` installs it, or says how.")
    return found


def plain_account() -> tuple[int, int] | None:
    """Give user and group for programs that refuse to run as root; None if we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise ServerMissing("PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to run it as.")
