"""Jobs are buried, and a person is told, with the commands that look and retry.

Watch one message tell of all five jobs, because they failed alike.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue

from stage import PATIENCE_S, Worker, say, stage

from penstock import Penstock

app = Penstock()
messages: Queue[dict[str, str]] = Queue()


@app.task(max_attempts=1)
def charge(order: int) -> None:
    raise PermissionError(f"the bank refuses our key for order {order}")


class Chat(BaseHTTPRequestHandler):
    """Stands for the service in which the person reads."""

    def do_POST(self) -> None:
        messages.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


def main() -> None:
    with stage(app), HTTPServer(("127.0.0.1", 0), Chat) as chat:
        threading.Thread(target=chat.serve_forever, daemon=True).start()
        charge.enqueue_many([(order,) for order in range(5)])
        with Worker(PENSTOCK_ALERTS=f"json://127.0.0.1:{chat.server_port}"):
            message = messages.get(timeout=PATIENCE_S)
            say(message["title"])
            for line in filter(None, message["message"].splitlines()):
                say(f"    {line}")
        chat.shutdown()


if __name__ == "__main__":
    main()
