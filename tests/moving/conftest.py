"""The routes on which moves between real stores are tested."""

from pathlib import Path

import pytest

from tests.moving.routes import ROUTES, Route


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest, tmp_path: Path) -> Route:
    """Give the URLs of two empty stores that outlive a process; each kind of store has a maker in `routes`."""
    return Route(*(ROUTES[request.param][place](request, tmp_path / name) for place, name in enumerate(("from", "to"))))
