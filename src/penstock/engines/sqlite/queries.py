"""The statements of queries.sql by name."""

from penstock.engines.statements import read_statements

SQL = read_statements(__package__, "queries.sql")
