"""A private PostgreSQL."""

import itertools
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg

from tests.servers.process import ServerProcess
from tests.servers.programs import plain_account, postgres_program

_INITDB = "--username=penstock --auth=trust --encoding=UTF8 --locale=C --no-sync"


class PostgresServer(ServerProcess):
    """PostgreSQL on a free port of loopback, with one user `penstock` and the database `postgres`.

    Args:
        folder: one that another account than ours can reach if we are root; pytest's are for their owner alone.
        settings: as in postgresql.conf: `fsync="off"`. The defaults are those of the server, so every commit is synced.
    """

    def __init__(self, folder: Path, **settings: str | int) -> None:
        super().__init__(folder)
        self.settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        self.settings |= {name: str(value) for name, value in settings.items()}
        self.account = plain_account()
        self.data = folder / "data"
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return f"postgresql://penstock@127.0.0.1:{self.port}/postgres"

    def empty_store(self) -> str:
        """Give the URL of a new database."""
        name = f"store_{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"{self.url.removesuffix('/postgres')}/{name}"

    def command(self) -> Sequence[str]:
        words = [postgres_program("postgres"), "-D", str(self.data), "-p", str(self.port)]
        for name, value in self.settings.items():
            words += ["-c", f"{name}={value}"]
        return words

    def start(self) -> None:
        if not self.data.exists():
            self._make_data()
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of a killed one, whose number may be in use again
        super().start()

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it as `pg_ctl stop -m fast` does; SIGQUIT is `-m immediate`."""
        super().stop(number)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_data(self) -> None:
        self._allow_account()
        user, group = self.account or (None, None)
        subprocess.run(
            [postgres_program("initdb"), "-D", str(self.data), *_INITDB.split()],
            user=user,
            group=group,
            cwd=self.folder,
            check=True,
            capture_output=True,
        )

    def _allow_account(self) -> None:
        """Give the folder to the account that runs the server."""
        if self.account is not None:
            shutil.chown(self.folder, *self.account)


def version() -> str:
    """Give the version of the server that tests run."""
    run = subprocess.run([postgres_program("postgres"), "--version"], capture_output=True, text=True, check=True)
    return run.stdout.strip()
