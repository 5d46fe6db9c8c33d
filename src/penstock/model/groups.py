"""Which buried jobs belong together: those of one task in one queue that failed alike."""

from msgspec.structs import replace

from penstock.model.job import ErrorInfo

__all__ = ["GROUP_LENGTH", "group_of", "grouped"]

#: Characters of the id of a group.
GROUP_LENGTH = 12


def group_of(queue: str, task: str, error: ErrorInfo) -> str:
    """Give the id of the group of jobs that were buried with such an error.

    It follows from the queue, the task, the exception's class and the function in which it was raised; where there is
    none, from the kind of the error and the signal or exit status that ended the process. Neither messages nor lines
    count: messages name what differs from job to job, and lines move with every edit. It is the same in every store.

    >>> one = ErrorInfo("failed", type="builtins.ValueError", message="7 is odd", where="shop.jobs:check")
    >>> other = ErrorInfo("failed", type="builtins.ValueError", message="9 is odd", where="shop.jobs:check")
    >>> group_of("mail", "shop.send", one) == group_of("mail", "shop.send", other)
    True
    """
    import hashlib  # slow to import, and seldom needed

    how = error.type or error.kind
    if not error.type and error.evidence is not None:
        how = f"{how} {error.evidence.status}"
    alike = "\0".join((queue, task, how, error.where))
    return hashlib.sha1(alike.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()[:GROUP_LENGTH]


def grouped(queue: str, task: str, error: ErrorInfo) -> ErrorInfo:
    """Give the error with the group of the job that it buries."""
    return replace(error, group=group_of(queue, task, error))
