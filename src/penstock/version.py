"""Which version of penstock this is."""

__all__ = ["VERSION"]

#: Said here and not looked up, as the metadata of packages take longer to read than a worker needs to start.
VERSION = "0.1.0"
