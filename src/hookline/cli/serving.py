"""A page that is made anew for each request, on this machine alone."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hookline.cli.shared import print_note
from hookline.errors import HooklineError, SourceError


def serve_pages(port: int, make: Callable[[], str]) -> None:
    """Serve a page at 127.0.0.1 until Ctrl-C. SourceError where the port cannot be used."""
    try:
        server = server_of(port, make)
    except (OSError, OverflowError) as error:
        raise SourceError(f"cannot serve at port {port}: {error}") from error
    print_note(f"the page is at http://127.0.0.1:{server.server_port}, until Ctrl-C")
    with server:
        server.serve_forever()


def server_of(port: int, make: Callable[[], str]) -> ThreadingHTTPServer:
    """A server on the loopback address; port 0 takes one that is free."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/":
                self.send_error(404)
                return
            try:
                content, code = make().encode(), 200
            except HooklineError as error:
                content, code = str(error).encode(), 500
            self.send_response(code)
            self.send_header("Content-Type", f"text/{'html' if code == 200 else 'plain'}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
