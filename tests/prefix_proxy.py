"""A proxy that serves a service under /rec/, as a location of nginx or a notebook's /proxy/8765/ does."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator


class Proxy(http.server.ThreadingHTTPServer):
    """Passes on what is under /rec/ to a port of this machine, and keeps the paths that it was asked for."""

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.asked = port, []


class _Handler(http.server.BaseHTTPRequestHandler):
    def answer(self) -> None:
        self.server.asked.append(self.path)
        if not self.path.startswith("/rec/"):
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        kept = {n: v for n, v in self.headers.items() if n.lower() in ("content-type", "origin", "sec-fetch-site")}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)) as behind:
            behind.request(self.command, self.path.removeprefix("/rec"), body or None, kept)
            answer = behind.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        self.send_header("content-type", answer.headers["content-type"])
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """Run a proxy before a port of this machine."""
    server = Proxy(port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()
