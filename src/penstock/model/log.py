"""What is kept of the text that a job logs."""

#: Bytes of UTF-8 that are kept of one attempt, the last ones.
LOG_BYTES_KEPT = 64 * 1024
#: Attempts whose text is kept, the newest ones: a job that snoozes for years must not grow for years.
LOGS_KEPT = 20


def kept_text(text: str) -> str:
    """Give the end of an attempt's text that is kept, in whole characters.

    >>> len(kept_text("x" * 70_000))
    65536
    """
    data = text.encode("utf-8", "replace")
    return data[-LOG_BYTES_KEPT:].decode("utf-8", "ignore")
