"""A server for this computer alone, that hands out a fixed set of contents."""

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mnist_cnn.common.errors import InputError
from tools.demo.site import Content

LOOPBACK = "127.0.0.1"
# The page runs its own scripts, and WebAssembly, and asks its own server. A browser lets it do nothing else.
# Source: "Content Security Policy Level 3", https://www.w3.org/TR/CSP3/
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        *(f"{kind}-src 'self'" for kind in ("connect", "img", "style")),
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
    ]
)


def make_server(contents: Mapping[str, Content], port: int) -> ThreadingHTTPServer:
    """A server of contents, by their path; it listens, and answers as soon as it is told to serve.

    Args:
        port: 0 is any that is free.

    Raises:
        InputError: the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A browser keeps connections open that it does not use.
        timeout = 60

        def do_GET(self) -> None:
            """Answer with a content."""
            self._answer()

        def do_HEAD(self) -> None:
            """Answer without the content."""
            self._answer()

        def _answer(self) -> None:
            # Another site's name that was made to lead here is not answered.
            if self.headers["Host"] not in own_names:
                self.send_error(403)
                return
            content = contents.get(self.path.partition("?")[0])
            try:
                body = content.read() if content else None
            except OSError:
                body = None
            if content is None or body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", content.kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def end_headers(self) -> None:
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cache-Control", "no-cache")
            super().end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the terminal shows the address."""

    try:
        server = _Server((LOOPBACK, port), Handler)
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error
        raise InputError(f"port {port} cannot be had ({told}); PORT=0 takes one that is free") from None
    own_names = {f"{name}:{server.server_port}" for name in (LOOPBACK, "localhost")}
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing: a browser that leaves in the middle is no error."""
