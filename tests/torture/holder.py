"""Hold the write lock of a SQLite file, again and again, until killed: `python -m tests.torture.holder FILE SECONDS`.

In between it leaves the others the fifth part of that.
"""

import sqlite3
import sys
import time

db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
held_s = float(sys.argv[2])
while True:
    db.execute("BEGIN IMMEDIATE")
    time.sleep(held_s)
    db.execute("COMMIT")
    time.sleep(held_s / 5)
