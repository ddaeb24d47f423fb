"""Runs the server until Ctrl-C: binds the socket, opens the browser, and ends cleanly."""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable

import uvicorn
from starlette import types

from pconv_jax import errors

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def bind(host: str, port: int | None, default: int) -> socket.socket:
    """Returns a listening socket.

    Args:
      host: name or address to bind to.
      port: its port; 0 is any free one, None is the default, or any free one if that is taken.
      default: the port to try for None.

    Raises:
      UserError: the port is taken, or the host is not an address of this machine.
    """
    try:
        return _bound(host, default if port is None else port)
    except OSError as error:
        if port is None:
            return _bound(host, 0)
        raise errors.UserError(
            f"--port={port} on {host} cannot be used ({error.strerror}): choose another port, or leave --port out"
        ) from error


def run(app: types.ASGIApp, listener: socket.socket, started: Callable[[], None], ending: Callable[[], object]):
    """Serves until SIGINT, SIGTERM or SIGHUP. A second signal ends the process at once.

    Args:
      app: the ASGI application.
      listener: the socket.
      started: called when the server answers.
      ending: called when a signal has come, before the server waits for requests in work.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # Nothing stands between the browser and this server.
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config, started, ending)
    before = {number: signal.signal(number, server.end) for number in _SIGNALS}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """A server that leaves signals to `run`: uvicorn raises them again when it has ended."""

    def __init__(self, config, started, ending):
        super().__init__(config)
        self._started, self._ending = started, ending

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets=None):
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # Requests in work are cut off: no news.
        self._ending()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self):
        yield

    def end(self, *_):
        if self.should_exit:
            os._exit(1)
        self.should_exit = True


def _bound(host, port):
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener
