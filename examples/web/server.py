"""A web application that answers at once and leaves the work to a worker.

POST /reports {"city": "Paris"}  ->  202, the job's id and the URL of its status
GET /jobs/ID                     ->  200, its state, progress and result
"""

import json
import math
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tasks import app, write_report

from penstock import EngineUnavailable, JobNotFound, PenstockError, QueueFull

MOST_WAITING = 100
LARGEST_BODY = 10_000
RETRY_AFTER_S = 5


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        if self.path != "/reports":
            self._answer(404, {"error": f"{self.path} takes no orders; use /reports."})
            return
        city = self._city()
        if city is None:
            self._answer(400, {"error": 'Send JSON such as {"city": "Paris"}.'})
            return
        try:
            job = write_report.enqueue(city)
        except QueueFull as error:
            self._come_back(error, error.retry_after)
        except EngineUnavailable as error:
            self._come_back(error, RETRY_AFTER_S)
        else:
            url = f"/jobs/{job.id}"
            self._answer(202, {"id": job.id, "status": url}, {"Location": url})

    def do_GET(self) -> None:
        where, _, id = self.path.rpartition("/")
        if where != "/jobs":
            self._answer(404, {"error": f"Nothing is at {self.path}."})
            return
        try:
            job = app.job(id).info()
        except JobNotFound as error:
            self._answer(404, {"error": str(error)})
        except EngineUnavailable as error:
            self._come_back(error, RETRY_AFTER_S)
        else:
            progress = None if job.progress is None else {"done": job.progress.done, "of": job.progress.total}
            result = None if job.result is None else app.decode_result(job.task, job.result)
            self._answer(200, {"id": job.id, "state": job.state, "progress": progress, "result": result})

    def _city(self) -> str | None:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > LARGEST_BODY:
            return None
        try:
            body = json.loads(self.rfile.read(int(size)))
        except ValueError:
            return None
        city = body.get("city") if isinstance(body, dict) else None
        return city if isinstance(city, str) else None

    def _come_back(self, error: PenstockError, after_s: float) -> None:
        """Refuse for now, and say in whole seconds when to try again."""
        self._answer(503, {"error": str(error)}, {"Retry-After": str(max(1, math.ceil(after_s)))})

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main(port: int = 8000, most_waiting: int = MOST_WAITING) -> None:
    app.queue("reports").limit(max_jobs=most_waiting)
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
