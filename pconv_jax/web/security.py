"""Lets nobody use the server but the page that it serves: checks the host's name, the origin and the token.

Another page in the same browser can send requests to 127.0.0.1, and by DNS rebinding even under a name of its own. It
knows neither the token in the path, nor can it send `Host` and `Origin` headers of its choice.
"""

import hmac
import ipaddress
import socket

from starlette import datastructures, responses, types

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SAME_ORIGIN = (None, "same-origin", "none")  # Of Sec-Fetch-Site; "none" is an address that a person has typed.


class Guard:
    """An ASGI application around another one, which gets only requests that the page or the user has sent.

    The first part of a path is the token, which is removed before the request is handed on.
    """

    def __init__(self, app: types.ASGIApp, token: str, host: str):
        """Prepares the checks.

        Args:
          app: the application to protect.
          token: the first part of every path.
          host: the name or address that the server is bound to. Beyond loopback, requests may name the server by any
            address and by its host name: DNS rebinding needs another name.
        """
        self._app, self._token = app, token
        self._remote = not is_loopback(host)
        self._names = {*LOOPBACK, host.lower()} | ({socket.gethostname().lower()} if self._remote else set())

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send):
        """Answers a request itself if it is refused; else hands it on, without the token in its path."""
        if scope["type"] != "http":  # Start and end of the server; websockets are not served.
            await self._app(scope, receive, send)
            return
        headers, answer = datastructures.Headers(scope=scope), _with_headers(send)
        token, slash, rest = scope["path"].removeprefix("/").partition("/")
        known = hmac.compare_digest(token.encode(), self._token.encode())
        refused = self._refusal(headers, known, f"{scope['scheme']}://", rest)
        response: types.ASGIApp
        if refused and scope["path"] == "/":
            response = responses.PlainTextResponse(refused, 403)
        elif refused:
            response = responses.JSONResponse({"error": refused}, 403)
        elif not slash:
            response = responses.RedirectResponse(f"/{token}/")
        else:
            response = self._app
            scope = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await response(scope, receive, answer)

    def _refusal(self, headers, known, scheme, path):
        """Returns why a request is refused, or an empty string."""
        host = headers.get("host", "")
        if not self._is_own(host):
            return f"the request is for the host {host[:100]!r}, which is not this server's: use the address as printed"
        if not known:
            return "the address lacks the right token: open the address that the terminal shows"
        origin = headers.get("origin")
        if origin is not None and origin != scheme + host:
            return f"the request comes from {origin[:100]!r}, another page: only the server's own page may send it"
        if path.startswith("api/") and headers.get("sec-fetch-site") not in _SAME_ORIGIN:
            return "the request comes from another page: only the server's own page may send it"
        return ""

    def _is_own(self, header):
        """Returns whether a Host header names this server; its port may differ, as through an SSH tunnel."""
        name = header.lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        return name in self._names or (self._remote and _is_address(name))


def is_loopback(host: str) -> bool:
    """Returns whether a server bound to this host can be reached from this machine alone."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name):
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(send):
    """Returns a `send` that adds the security headers, and forbids to store what does not allow it itself."""

    async def answer(message):
        if message["type"] == "http.response.start":
            headers = datastructures.MutableHeaders(scope=message)
            headers.update(HEADERS)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return answer
