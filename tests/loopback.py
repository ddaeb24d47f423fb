"""An HTTP server on this machine, by which downloads are tested without a network."""

import contextlib
import hashlib
import http.server
import socket
import threading

COMMIT = "a" * 40


@contextlib.contextmanager
def serving(content, status=200, length=None):
    """Yields the address of a server that answers every request with `content`, as the Hugging Face hub does.

    Args:
      content: bytes of the answer.
      status: HTTP status code.
      length: announced length of the content; by default the real one.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def closed_port():
    """Returns an address that refuses connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
