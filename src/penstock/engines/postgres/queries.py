"""The statements of queries.sql by name, for a schema."""

from functools import cache
from pathlib import Path

from penstock.engines.statements import read_statements

_STATEMENTS = read_statements(Path(__file__).with_name("queries.sql"))


def quoted(name: str) -> str:
    """Write a name as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def placed(sql: str, schema: str) -> str:
    """Let a script of the package speak of this schema: there it is called penstock."""
    return sql.replace("penstock.", f"{quoted(schema)}.")


@cache
def statements(schema: str) -> dict[str, bytes]:
    """Give every statement, ready to be sent."""
    return {name: placed(statement, schema).encode() for name, statement in _STATEMENTS.items()}
