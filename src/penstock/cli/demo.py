"""`penstock demo`."""

import signal
import sys
from pathlib import Path

import click

__all__ = ["demo"]

_TERMINATED = 128 + signal.SIGTERM


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--keep", is_flag=True, help="Keep the store, and print the commands that look at it.")
def demo(folder: Path | None, keep: bool) -> None:
    """Show penstock at work on the source files in FOLDER.

    One job counts one file. Half way, one of two worker processes is killed. One job cannot succeed and is buried; one
    succeeds at its second attempt. In the end the sums are compared with those of a plain loop over the same files.

    Without FOLDER it takes the standard library of the running Python, which is 1,500 to 2,000 files. The exit status
    is 1 if the sums differ.
    """
    from rich.console import Console

    from penstock.demo.sources import standard_library
    from penstock.demo.story import run

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        sys.exit(run((folder or standard_library()).resolve(), Console(), keep=keep))
    finally:
        signal.signal(signal.SIGTERM, before)
