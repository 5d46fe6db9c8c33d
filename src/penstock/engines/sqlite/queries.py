"""The statements of queries.sql by name."""

from pathlib import Path

from penstock.engines.statements import read_statements

SQL = read_statements(Path(__file__).with_name("queries.sql"))
