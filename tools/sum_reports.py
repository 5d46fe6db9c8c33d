"""Add up the JUnit reports of several pytest runs and print the sum on one line."""

import sys
from pathlib import Path
from xml.etree import ElementTree


def main(paths: list[str]) -> None:
    """Print the sum of the reports at `paths`."""
    suites = [suite for path in paths for suite in ElementTree.parse(Path(path)).iter("testsuite")]
    total, skipped, failures, errors = (
        sum(int(suite.get(outcome, 0)) for suite in suites) for outcome in ("tests", "skipped", "failures", "errors")
    )
    failed = failures + errors
    print(f"{total - failed - skipped} passed, {failed} failed, {skipped} skipped")


if __name__ == "__main__":
    main(sys.argv[1:])
