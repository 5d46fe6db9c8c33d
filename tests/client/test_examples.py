import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["client", "context", "engines.open", "settings", "testing.clock", "testing.memory", "testing.running"]
)
def test_examples_in_docstrings_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"penstock.{module}"))
    assert found.attempted
    assert not found.failed
