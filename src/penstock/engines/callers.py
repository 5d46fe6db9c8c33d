"""What a caller gives as its database connection, followed down to the driver's own.

SQLAlchemy and Django are known by what their objects offer, so that neither is imported here.
"""

from inspect import iscoroutinefunction
from typing import Any

from penstock.model.errors import ConnectionInvalid

__all__ = ["driver_connection", "name_of"]


def driver_connection(given: Any) -> Any:
    """Give the driver's connection below what SQLAlchemy or Django wrap it in.

    That is a Connection, a Session or `django.db.connection`; anything else is given back as it is. SQLAlchemy's
    transaction is begun if it has not begun, so that its commit is the driver's.

    Raises:
        ConnectionInvalid: it is closed, asynchronous, or no connection at all but what opens connections.
    """
    _refuse_asynchronous(given)
    if _offers(given, "ensure_connection", "vendor"):
        given.ensure_connection()
        return given.connection
    if _offers(given, "get_bind", "connection"):  # a Session, or a scoped_session
        given = given.connection()
    if _offers(given, "dialect", "dispose"):
        raise ConnectionInvalid(
            f"{name_of(given)} opens connections and is none. Give a connection of it, as in "
            "`with engine.begin() as connection:`, or a Session."
        )
    if _offers(given, "dialect", "begin_nested"):
        return _below_sqlalchemy(given)
    return given


def name_of(given: Any) -> str:
    """Name what was given by its class: connections may show passwords."""
    return f"{type(given).__module__}.{type(given).__qualname__}"


def _below_sqlalchemy(connection: Any) -> Any:
    if connection.closed:
        raise ConnectionInvalid("The SQLAlchemy connection is closed. Give one that is open, in its transaction.")
    if not connection.in_transaction():
        connection.begin()  # its own execute would do the same; without it, its commit would do nothing
    driver = connection.connection.driver_connection
    _refuse_asynchronous(driver)
    return driver


def _refuse_asynchronous(given: Any) -> None:
    if hasattr(type(given), "run_sync") or any(_is_asynchronous(given, verb) for verb in ("commit", "execute")):
        raise ConnectionInvalid(
            f"{name_of(given)} is asynchronous, also inside its run_sync; jobs are added through a synchronous driver. "
            "Do the transaction with a synchronous connection in a thread: `await asyncio.to_thread(place_order)`."
        )


def _is_asynchronous(given: Any, verb: str) -> bool:
    return iscoroutinefunction(getattr(type(given), verb, None))


def _offers(given: Any, *names: str) -> bool:
    return all(hasattr(given, name) for name in names)
