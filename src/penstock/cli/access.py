"""From the options of a command to the settings, the application and the store it speaks of."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from penstock.client import Penstock
from penstock.engines.open import is_there, without_password
from penstock.loading import import_fault, load_app
from penstock.model.errors import EngineDown, PenstockError, SettingsInvalid
from penstock.settings import Settings, find_file, load

__all__ = ["AppBroken", "by_default", "existing_store", "named_app", "reaches_store", "said", "settings", "store"]

F = TypeVar("F", bound=Callable[..., Any])

_APP, _URL = "penstock.app", "penstock.url"


class AppBroken(SettingsInvalid):
    """The application's own code failed while it was imported."""


def reaches_store(command: F) -> F:
    """Give a command the options -A and --url; what stands nearest to the end of the line holds."""
    command = click.option(
        "--url", metavar="URL", expose_value=False, callback=_keep(_URL), help="Where the store is [PENSTOCK_URL]."
    )(command)
    return click.option(
        "-A",
        "--app",
        metavar="MODULE:NAME",
        expose_value=False,
        callback=_keep(_APP),
        help="The application, also as path/to/file.py:NAME [PENSTOCK_APP].",
    )(command)


def said(ctx: click.Context) -> dict[str, object]:
    """Give what was said with -A and --url on this command or one before it."""
    return {"app": ctx.meta.get(_APP), "url": ctx.meta.get(_URL)}


def settings(ctx: click.Context, **arguments: object) -> Settings:
    """Build the settings of this command line.

    Raises:
        SettingsInvalid: lists all faults at once.
    """
    return load({**said(ctx), **arguments}, os.environ, find_file())


def named_app(ctx: click.Context) -> Penstock:
    """Import the application that was named; without a name, give one that knows no tasks.

    A URL given on the command line outdoes the application's own.

    Raises:
        AppNotFound: it is not where it was said to be.
        AppBroken: its own code failed.
    """
    found = settings(ctx)
    if found.app is None:
        given = None if found.source("url") == "default" else _shared(found.url)
        return Penstock(given, max_payload=found.max_payload)
    app = _imported(found.app)
    if found.source("url") == "argument":
        app.redirect(found.url)
    _shared(app.settings.url)
    return app


def store(ctx: click.Context) -> Penstock:
    """Give access to the store alone; the application is imported only if it alone knows where the store is."""
    found = settings(ctx)
    if found.source("url") == "argument":
        return Penstock(_shared(found.url), max_payload=found.max_payload)
    return named_app(ctx)


def existing_store(ctx: click.Context) -> Penstock:
    """Do `store`, but do not make a new one where there is none: a mistyped URL would seem an empty store.

    Raises:
        EngineDown: there is no store yet.
    """
    app = store(ctx)
    url = app.settings.url
    if not is_there(url):
        raise EngineDown(
            f"There is no store at {without_password(url)}{by_default(app)}: nothing was enqueued there yet. Check "
            "--url, -A and the working directory; `penstock config` shows what holds."
        )
    return app


def by_default(app: Penstock) -> str:
    """Say that a store is used because no URL was given anywhere; empty if one was."""
    return f", the default in {os.getcwd()} as no URL was given" if app.settings.source("url") == "default" else ""


def _keep(key: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def keep(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta[key] = value

    return keep


def _shared(url: str) -> str:
    if url.startswith("memory:"):
        raise SettingsInvalid(
            [f"{url} is private to each process, so the command line finds no jobs in it; use sqlite:///penstock.db."]
        )
    return url


def _imported(target: str) -> Penstock:
    try:
        return load_app(target)
    except (PenstockError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise AppBroken([import_fault(target, error)]) from error
