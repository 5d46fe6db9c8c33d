"""The command `penstock`: Ctrl-C ends it without a traceback, also while the rest is still being imported.

It stands outside the package, because importing any part of `penstock` imports most of it first.
"""

import sys

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process."""
    try:
        from penstock.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("penstock: interrupted\n")
        sys.exit(INTERRUPTED)
