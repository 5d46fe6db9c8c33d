"""Burn what a core has, until killed: `python -m tests.torture.burner CORE`."""

import os
import sys

os.sched_setaffinity(0, {int(sys.argv[1])})
while True:
    pass
