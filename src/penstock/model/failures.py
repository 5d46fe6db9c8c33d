"""Classes of failure: whose fault an attempt was that did not succeed, and so what helps."""

import errno
from collections.abc import Callable

__all__ = [
    "CLASSES",
    "DEPENDENCY",
    "NO_RULES",
    "Classes",
    "Rule",
    "classify",
    "dependency_of",
    "is_dependency",
    "is_failure_class",
]

#: Whose fault a failure can be. `dependency:` is followed by a name that the application gives.
CLASSES = ("job", "timeout", "host", "network", "crash", "lost")
DEPENDENCY = "dependency:"
_LONGEST_NAME = 100

#: The host is out of something, or its disk is broken: another host may well do the job.
_OF_THE_HOST = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENODEV}
)
_OF_THE_NETWORK = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET}
)


def is_failure_class(name: str) -> bool:
    """Say whether a name is one of a class of failure."""
    return name in CLASSES or is_dependency(dependency_of(name) or "")


def dependency_of(failure: str) -> str | None:
    """Give the name of the dependency that a class of failure puts it down to, None for any other class."""
    return failure.removeprefix(DEPENDENCY) if failure.startswith(DEPENDENCY) else None


def is_dependency(name: str) -> bool:
    """Say whether a dependency may have this name: 1 to 100 characters without NUL, not a class of failure."""
    return 1 <= len(name) <= _LONGEST_NAME and "\0" not in name and not name.startswith(DEPENDENCY)


#: A class of failure, or what gives the one of an exception; None leaves it to others.
Rule = str | Callable[[BaseException], str | None]


class Classes:
    """What an application knows of its exceptions; a rule for a class holds for its subclasses, unless they have one.

    Attributes:
        rules: by exception class.
    """

    def __init__(self) -> None:
        self.rules: dict[type[BaseException], Rule] = {}

    def of(self, error: BaseException) -> str:
        """Give the class of failure of an exception; what no rule knows is looked at as it is.

        >>> classes = Classes()
        >>> classes.rules[ConnectionError] = "dependency:smtp"
        >>> classes.of(ConnectionRefusedError()), classes.of(KeyError())
        ('dependency:smtp', 'job')
        """
        for kind in type(error).__mro__:
            rule = self.rules.get(kind)
            found = rule(error) if callable(rule) else rule
            if found is None:
                continue
            if not is_failure_class(found):
                raise ValueError(f"{found!r} is no class of failure")
            return found
        return classify(error)

    def may_name_dependencies(self) -> bool:
        """Say whether a failure may be put down to a dependency."""
        return any(callable(rule) or dependency_of(rule) is not None for rule in self.rules.values())

    def alone(self) -> "Classes":
        """Give the same for jobs that have a process of their own: what memory they lack is what they asked for."""
        classes = Classes()
        classes.rules = {MemoryError: "job", **self.rules}
        return classes


#: For whoever runs without an application.
NO_RULES = Classes()


def classify(error: BaseException) -> str:
    """Give the class of an exception as far as it tells by itself; the application knows more.

    >>> classify(OSError(errno.ENOSPC, "No space left on device"))
    'host'
    >>> classify(ValueError("7"))
    'job'
    """
    if isinstance(error, MemoryError):
        return "host"
    if isinstance(error, OSError):
        if error.errno in _OF_THE_HOST:
            return "host"
        if error.errno in _OF_THE_NETWORK:
            return "network"
    return "job"
