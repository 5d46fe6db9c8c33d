"""The store cannot be reached for a while: the worker keeps what it has finished, and delivers it later.

Watch a call be refused in time, and a job that ended meanwhile be neither lost nor run twice.
"""

from line import line_to
from stage import Worker, folder, say, stage, tell, until, wait_for

from penstock import EngineUnavailable, Penstock

app = Penstock()


@app.task
def write_report(city: str) -> str:
    (folder() / "begun").touch()
    until((folder() / "may end").exists, "it may end")
    (folder() / "ended").touch()
    return f"report on {city}"


def main() -> None:
    with stage(app) as place:
        job = write_report.enqueue("Paris")
        line = line_to(app.settings.url)
        with Worker("--url", line.url) as worker, Penstock(line.url) as other:
            until((place / "begun").exists, "it begins")
            line.cut()
            say("the store is cut off")
            (place / "may end").touch()
            until((place / "ended").exists, "it ends")
            say("the job has ended meanwhile")
            try:
                other.enqueue(write_report.name, "Rome")
            except EngineUnavailable as error:
                say(f"a new job is refused: {type(error).__name__}")
            until(lambda: worker.has_logged("tries again"), "the worker notices")
            say("the worker has noticed, and tries again")
            line.mend()
            say("the store is back")
            wait_for([job])
            say(f"result: {job.result()}")
        tell(job)


if __name__ == "__main__":
    main()
