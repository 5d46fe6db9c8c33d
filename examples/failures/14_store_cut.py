"""The store cannot be used for a while: the worker keeps what it has finished, and delivers it later.

Watch a call be refused in time, and a job that ended meanwhile be neither lost nor run twice.
"""

import sqlite3
import sys
from contextlib import closing

from stage import Worker, folder, say, stage, tell, until

from penstock import EngineUnavailable, Penstock

app = Penstock()


@app.task
def write_report(city: str) -> str:
    (folder() / "begun").touch()
    until((folder() / "may end").exists, "it may end")
    (folder() / "ended").touch()
    return f"report on {city}"


def main() -> None:
    with stage(app) as place, Worker() as worker:
        url = app.settings.url
        if not url.startswith("sqlite:"):
            sys.exit("This example locks a file; give a URL of SQLite, or none.")
        job = write_report.enqueue("Paris")
        until((place / "begun").exists, "it begins")
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            say("another program holds the lock of the file")
            (place / "may end").touch()
            until((place / "ended").exists, "it ends")
            say("the job has ended meanwhile")
            try:
                write_report.enqueue("Rome")
            except EngineUnavailable as error:
                say(f"a new job is refused: {type(error).__name__}")
            until(lambda: worker.has_logged("tries again"), "the worker notices")
            say("the worker has noticed, and tries again")
        say("the other program has let go")
        say(f"result: {job.result(60)}")
        tell(job)


if __name__ == "__main__":
    main()
