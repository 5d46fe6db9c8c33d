"""Sending a message by apprise, so that nothing of a URL's secrets comes out again."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

__all__ = ["scrub", "send"]

#: What apprise and what it stands on log while they send may hold the URL.
_TALKATIVE = ("apprise", "urllib3", "requests", "requests_oauthlib", "paho", "slixmpp")
_SHORTEST_SECRET = 3


def send(url: str, title: str, body: str) -> str | None:
    """Send a message and give why it could not be sent, None if it was; takes as long as the service takes.

    The reason is for a person, and holds nothing of the URL but its scheme.
    """
    with _overheard() as said:
        try:
            fault = _send(url, title, body)
        except Exception as error:  # noqa: BLE001 (a service of apprise may fail in any way)
            fault = f"{type(error).__name__}: {error}"
    if fault is None:
        return None
    return scrub("; ".join(dict.fromkeys([fault, *said])), url)


def _send(url: str, title: str, body: str) -> str | None:
    apprise = _apprise()
    asset = apprise.AppriseAsset(app_id="penstock", app_desc="penstock", app_url="", async_mode=False)
    service = apprise.Apprise(asset=asset)
    if not service.add(url):
        return "apprise knows no such URL"
    plain, failure = apprise.NotifyFormat.TEXT, apprise.NotifyType.FAILURE
    sent: Any = service.notify(body=body, title=title, body_format=plain, notify_type=failure)
    return None if sent else "it was not taken"


def _apprise() -> Any:
    """Import apprise, which is slow; what it says of Python's own modules then concerns nobody here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import apprise

        apprise.Apprise().add("json://localhost")  # its services are imported with the first URL
    return apprise


def scrub(text: str, url: str) -> str:
    """Put `***` for all parts of a URL that stand in a text; every part but the scheme may be a secret.

    >>> scrub("cannot log in as bob:s3cret%21 at mail.example", "mailto://bob:s3cret%21@mail.example")
    'cannot log in as ***:*** at ***'
    """
    text = re.sub(r"://\S+", "://***", text)  # apprise leaves the first and last letters of some secrets
    rest = url.partition("://")[2]
    parts = {rest, *re.split(r"[/:@?&=,;#\s]+", rest)}
    parts |= {unquote(part) for part in parts}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET:
            text = re.sub(re.escape(part), "***", text, flags=re.IGNORECASE)
    return text


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Keep the warnings of what sends, instead of letting them go into the log."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    ear = Ear()
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = False
        logger.addHandler(ear)
    try:
        yield said
    finally:
        for logger, propagates in zip(loggers, before, strict=True):
            logger.propagate = propagates
            logger.removeHandler(ear)
