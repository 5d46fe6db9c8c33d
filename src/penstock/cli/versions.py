"""Which version of penstock this is."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["own_version"]


def own_version() -> str:
    """Give the version of the installed package."""
    try:
        return version("penstock")
    except PackageNotFoundError:
        return "(not installed as a package)"
