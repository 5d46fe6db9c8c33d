"""Pairs of real stores between which jobs are moved."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Route(NamedTuple):
    """The URLs of two empty stores."""

    source: str
    target: str


def sqlite_url(_: pytest.FixtureRequest, place: Path) -> str:
    return f"sqlite:///{place}.db?durability=normal"


def redis_url(request: pytest.FixtureRequest, _: Path) -> str:
    url: str = request.getfixturevalue("redis_server").empty_store()
    return url


def postgres_url(request: pytest.FixtureRequest, _: Path) -> str:
    url: str = request.getfixturevalue("postgres_server").empty_store()
    return url


Maker = Callable[[pytest.FixtureRequest, Path], str]

#: By name, who makes an empty store to move from, and one to move to: every engine as both.
ROUTES: dict[str, tuple[Maker, Maker]] = {
    "sqlite-sqlite": (sqlite_url, sqlite_url),
    "sqlite-postgres": (sqlite_url, postgres_url),
    "postgres-redis": (postgres_url, redis_url),
    "redis-sqlite": (redis_url, sqlite_url),
}
