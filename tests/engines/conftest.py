"""Lets pytest explain the assertions of the suite, which lives in the package."""

import pytest

pytest.register_assert_rewrite("penstock.testing.conformance")
