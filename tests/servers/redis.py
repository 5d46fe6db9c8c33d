"""A private Redis."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import redis

from tests.servers.process import ServerProcess
from tests.servers.programs import redis_server


class RedisServer(ServerProcess):
    """Redis on a free port of loopback.

    Args:
        settings: as in redis.conf, with `_` for `-`: `appendonly="yes", appendfsync="always"`. By default nothing is
            saved, which suits tests that never restart it.
    """

    def __init__(self, folder: Path, **settings: str | int) -> None:
        super().__init__(folder)
        self._given = 0
        self.password: str | None = None
        self.settings = {"save": "", "maxmemory-policy": "noeviction", "enable-debug-command": "local"}
        self.settings |= {name.replace("_", "-"): str(value) for name, value in settings.items()}

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def empty_store(self) -> str:
        """Give the URL of a database of its own, which is empty; there are 15 of them, and then they come round."""
        self._given = self._given % 15 + 1
        with redis.Redis(port=self.port, db=self._given, socket_timeout=5) as client:
            client.flushdb()
        return f"redis://127.0.0.1:{self.port}/{self._given}"

    def command(self) -> Sequence[str]:
        words = [redis_server(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        for name, value in self.settings.items():
            words += [f"--{name}", value]
        return words

    def client(self) -> "redis.Redis":
        """Give a client of the test's own; whoever asks closes it."""
        return redis.Redis(port=self.port, password=self.password, socket_timeout=5)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class Sentinel(RedisServer):
    """A Sentinel that watches one server under the name `jobs`."""

    def __init__(self, folder: Path, watched: RedisServer, *more: str) -> None:
        folder.mkdir()
        super().__init__(folder)
        self._settings = folder / "sentinel.conf"
        lines = (f"port {self.port}", "bind 127.0.0.1", f"sentinel monitor jobs 127.0.0.1 {watched.port} 1", *more)
        self._settings.write_text("\n".join(lines))

    def command(self) -> list[str]:
        return [super().command()[0], str(self._settings), "--sentinel"]


def version() -> str:
    """Give the version of the server that tests run."""
    run = subprocess.run([redis_server(), "--version"], capture_output=True, text=True, check=True)
    return run.stdout.strip()
