"""What runs in the processes that `test_within_kills` kills; apart from it, because they start without pytest."""

import itertools
import os
import sqlite3
from contextlib import closing

from penstock.client import Penstock
from penstock.engines.open import open_engine, open_outbox
from penstock.worker.relay import carry
from tests.engines.sqlite.children import tell


def place_orders(store: str, database: str, first: int) -> None:
    """Place orders until it is killed, and take every third one back."""
    app = Penstock(f"sqlite:///{store}", outbox=None if store == database else f"sqlite:///{database}")
    with closing(sqlite3.connect(database)) as connection:
        for number in itertools.count(first):
            connection.execute("INSERT INTO orders VALUES (?)", (number,))
            app.using(connection=connection).enqueue("shop.send", number)
            if number % 3 == 0:
                connection.rollback()
            else:
                connection.commit()
            tell(number)
            if os.getppid() == 1:
                return


def relay_until_killed(store: str, database: str) -> None:
    """Carry two jobs at a time."""
    outbox = open_outbox(f"sqlite:///{database}")
    engine = open_engine(f"sqlite:///{store}")
    while os.getppid() != 1:
        tell(carry(outbox, engine, limit=2))
