"""`penstock demo`."""

import signal
import sys
from pathlib import Path

import click

__all__ = ["demo"]

#: What would end the demo before it could stop its worker; SIGHUP comes when its terminal is closed.
_ENDS = (signal.SIGTERM, signal.SIGHUP)


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

    before = {number: signal.getsignal(number) for number in _ENDS}
    for number in _ENDS:
        if before[number] is signal.SIG_DFL:  # `nohup` has SIGHUP ignored
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(run((folder or standard_library()).resolve(), Console(), keep=keep))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
