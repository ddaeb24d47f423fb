"""The routes of the server: they parse requests and word answers as JSON; `session.Session` does the work.

Bodies are the bytes of files, and parameters stand in the query, so that nothing but Starlette is needed.
"""

import asyncio
import base64
import contextlib
import errno
import mimetypes
import os
import time
import urllib.parse

import imagecodecs
import numpy as np
from starlette import applications, concurrency, exceptions, requests, responses, routing, staticfiles

from pconv_jax import errors
from pconv_jax.data import masks
from pconv_jax.reading import files
from pconv_jax.web import arrivals, descriptions, folder, photographs, previews, saving, session

PAGE = os.path.join(os.path.dirname(__file__), "page")
MAX_MASK_BYTES = 2**29  # Largest mask file: it is held in memory.
_LONGEST_WAIT = 5  # Seconds for which a request about a filling waits for a change at most.
_MOST = 2**31  # Of numbers whose largest value depends on the photograph.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNCHANGING = {"Cache-Control": "private, max-age=86400, immutable"}


def create(held: session.Session) -> applications.Starlette:
    """Returns the application for a session; `security.Guard` belongs around it."""
    routes = Routes(held)
    mimetypes.add_type("text/javascript", ".js")  # Some systems have another type, which browsers refuse.
    photograph, version = "/api/photographs/{id}", "/api/photographs/{id}/versions/{version}"
    return applications.Starlette(
        routes=[
            routing.Route("/api/session", routes.session),
            routing.Route("/api/photographs", routes.add, methods=["POST"]),
            routing.Route(photograph, routes.open, methods=["GET"]),
            routing.Route(photograph, routes.close, methods=["DELETE"]),
            routing.Route(f"{photograph}/thumbnail", routes.thumbnail),
            routing.Route(f"{photograph}/mask", routes.mask, methods=["POST"]),
            routing.Route(f"{photograph}/fillings", routes.fill, methods=["POST"]),
            routing.Route(version, routes.forget, methods=["DELETE"]),
            routing.Route(f"{version}/preview", routes.preview),
            routing.Route(f"{version}/file", routes.file),
            routing.Route(f"{version}/keep", routes.keep, methods=["POST"]),
            routing.Route("/api/fillings/{id}", routes.filling, methods=["GET"]),
            routing.Route("/api/fillings/{id}", routes.cancel, methods=["DELETE"]),
            routing.Mount("/", staticfiles.StaticFiles(directory=PAGE, html=True, check_dir=False)),
        ],
        exception_handlers={
            exceptions.HTTPException: _refused,
            photographs.Unknown: _unknown,
            photographs.Full: _full,
            folder.Exists: _exists,
            errors.UserError: _unusable,
            MemoryError: _no_memory,
            requests.ClientDisconnect: _gone,
            OSError: _system,
            Exception: _defect,
        },
    )


class Routes:
    """One method per route. Methods that are not `async` run in a thread of Starlette's."""

    def __init__(self, held: session.Session):
        """Keeps the session that the requests are about."""
        self._held = held

    def session(self, request: requests.Request) -> responses.Response:
        """Answers what the session holds."""
        del request
        return responses.JSONResponse(descriptions.of_session(self._held))

    async def add(self, request: requests.Request) -> responses.Response:
        """Adds the photograph in the body."""
        # In a thread, as it may wait for a photograph that is being decoded: other answers would wait with it.
        path = await concurrency.run_in_threadpool(self._held.photographs.new_path)
        try:
            await arrivals.save(request, path, files.MAX_BYTES)
            name = request.query_params.get("name", "")
            entry = await concurrency.run_in_threadpool(self._held.photographs.add, path, name)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
            raise
        await concurrency.run_in_threadpool(self._held.open, entry.id)
        return responses.JSONResponse(descriptions.of_photograph(entry), 201)

    def open(self, request: requests.Request) -> responses.Response:
        """Answers what the page shows of a photograph, and reads one of a folder."""
        return responses.JSONResponse(descriptions.of_photograph(self._held.open(request.path_params["id"])))

    def close(self, request: requests.Request) -> responses.Response:
        """Closes a photograph."""
        self._held.close(request.path_params["id"])
        return responses.Response(status_code=204)

    def thumbnail(self, request: requests.Request) -> responses.Response:
        """Answers a small picture of the original."""
        return _png(self._held.thumbnail(request.path_params["id"]))

    def preview(self, request: requests.Request) -> responses.Response:
        """Answers a picture of a version, or a rectangle of it."""
        photo = self._held.photographs.pixels(*_version(request))
        height, width = photo.pixels.shape[:2]
        return _png(previews.png(photo, arrivals.rectangle(request, width, height)))

    def file(self, request: requests.Request) -> responses.Response:
        """Answers the file of a version, to be saved."""
        identifier, version = _version(request)
        name, encoded = self._held.encode(identifier, version, _format(request))
        quoted = urllib.parse.quote(name, safe="", errors="replace")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quoted}"}
        return responses.Response(encoded, media_type=kind, headers=headers)

    def keep(self, request: requests.Request) -> responses.Response:
        """Writes the file of a version beside the photographs of the folder."""
        overwrite = bool(arrivals.number(request, "overwrite", 0, 1))
        identifier, version = _version(request)
        return responses.JSONResponse({"path": self._held.keep(identifier, version, _format(request), overwrite)})

    def forget(self, request: requests.Request) -> responses.Response:
        """Forgets a version that nothing builds on."""
        self._held.photographs.forget(*_version(request))
        return responses.Response(status_code=204)

    async def mask(self, request: requests.Request) -> responses.Response:
        """Answers the mask that the file in the body shows."""
        encoded = await arrivals.read(request, MAX_MASK_BYTES)
        polarity = request.query_params.get("polarity", "white_hole")
        return await concurrency.run_in_threadpool(self._read_mask, request.path_params["id"], polarity, encoded)

    def _read_mask(self, identifier, polarity, encoded):
        mask, warnings = self._held.read_mask(identifier, polarity, encoded)
        picture = base64.b64encode(imagecodecs.png_encode((1 - mask) * np.uint8(255))).decode()
        return responses.JSONResponse({"mask": picture, "area": masks.hole_area(mask), "warnings": warnings})

    async def fill(self, request: requests.Request) -> responses.Response:
        """Starts a filling with the mask in the body."""
        encoded = await arrivals.read(request, MAX_MASK_BYTES)

        def number(name, default, most, least=0):
            return arrivals.number(request, name, default, most, least)

        options = {
            "weights": request.query_params.get("weights", ""),
            "ensemble": number("ensemble", 1, session.MAX_ENSEMBLE, 1),
            "dilate": number("dilate", 0, session.MAX_DILATE),
            "feather": number("feather", 0, session.MAX_DILATE),
            "opaque": bool(number("opaque", 0, 1)),
        }
        placed = {"x", "y"} & request.query_params.keys()
        position = (number("x", 0, _MOST), number("y", 0, _MOST)) if placed else None
        base = number("base", 0, _MOST)
        filling = await concurrency.run_in_threadpool(
            self._held.fill, request.path_params["id"], base, encoded, position, **options
        )
        return responses.JSONResponse(descriptions.of_filling(self._held.queue, filling), 202)

    async def filling(self, request: requests.Request) -> responses.Response:
        """Answers the state of a filling; with `wait`, as soon as it changes."""
        filling = self._held.queue[request.path_params["id"]]
        deadline = time.monotonic() + arrivals.number(request, "wait", 0, _LONGEST_WAIT)

        def changing():
            return filling.state, filling.progress, self._held.queue.position(filling)

        before = changing()
        while not filling.ended and changing() == before and time.monotonic() < deadline:
            if await request.is_disconnected():
                break
            await asyncio.sleep(0.03)
        return responses.JSONResponse(descriptions.of_filling(self._held.queue, filling))

    def cancel(self, request: requests.Request) -> responses.Response:
        """Cancels a filling, and answers its state."""
        filling = self._held.queue[request.path_params["id"]]
        self._held.queue.cancel(filling)
        return responses.JSONResponse(descriptions.of_filling(self._held.queue, filling))


def _version(request):
    return request.path_params["id"], arrivals.number(request, "version", 0, _MOST)


def _format(request):
    return request.query_params.get("format", saving.ORIGINAL)


def _png(encoded):
    return responses.Response(encoded, media_type="image/png", headers=_UNCHANGING)


def _error(status, text):
    return responses.JSONResponse({"error": text}, status)


def _refused(request, error):
    response = _error(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


def _unknown(request, error):
    return _error(404, f"{error}: it was closed, or the server was started again")


def _full(request, error):
    return _error(429, str(error))


def _exists(request, error):
    return _error(409, str(error))


def _unusable(request, error):
    return _error(422, str(error))


def _no_memory(request, error):
    return _error(422, "this machine lacks the memory for it: make the photograph smaller")


def _gone(request, error):
    return responses.Response(status_code=400)


def _system(request, error):
    return _error(507 if error.errno in _FULL else 422, str(error))


def _defect(request, error):
    return _error(500, f"a defect of the program ({type(error).__name__}): the terminal shows where it is")
