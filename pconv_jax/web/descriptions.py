"""Describes a session, its photographs and its fillings as JSON values for the page."""

import dataclasses
import time
from typing import Any

from pconv_jax.inpainting import photograph_files
from pconv_jax.reading import files
from pconv_jax.web import filling_queue, photographs, saving, session, versions


def of_session(held: session.Session) -> dict[str, Any]:
    """Returns all that the page needs when it starts, also after a reload."""
    return {
        "folder": held.folder.name if held.folder else None,
        "weights": [
            {"id": choice.id, "name": choice.name, "description": choice.description, "default": index == 0}
            for index, choice in enumerate(held.networks.values())
        ],
        "limits": {
            "pixels": held.photographs.max_pixels,
            "bytes": files.MAX_BYTES,
            "dilate": session.MAX_DILATE,
            "ensemble": session.MAX_ENSEMBLE,
            "photographs": photographs.MOST,
        },
        "formats": [
            {"format": format, "extension": extension, "lossless": extension in photograph_files.LOSSLESS}
            for format, extension in saving.FORMATS.items()
        ],
        "photographs": [
            {
                "id": entry.id,
                "name": files.printable(entry.name),
                "opened": entry.about is not None,
                "saved": held.folder.saved(entry.name) if held.folder and entry.source else None,
            }
            for entry in held.photographs
        ],
        "fillings": [of_filling(held.queue, filling) for filling in held.queue.listed()],
    }


def of_photograph(entry: photographs.Entry) -> dict[str, Any]:
    """Returns what the page shows of an open photograph."""
    assert entry.about is not None  # It was opened.
    made = [of_version(version) for version in list(entry.derived.values())]
    return {"id": entry.id, "name": files.printable(entry.name), **entry.about, "versions": made}


def of_version(version: versions.Version) -> dict[str, Any]:
    """Returns a version as JSON values."""
    return dataclasses.asdict(version)


def of_filling(queue: filling_queue.FillingQueue, filling: filling_queue.Filling) -> dict[str, Any]:
    """Returns the state of a filling.

    Args:
      queue: the queue that it is in.
      filling: the filling.
    """
    running = filling.state == filling_queue.RUNNING
    left = None
    if running and filling.progress:
        left = round((time.monotonic() - filling.started) * (1 / filling.progress - 1), 1)
    return {
        "id": filling.id,
        "photograph": filling.photograph,
        "base": filling.base,
        "state": filling.state,
        "position": queue.position(filling),
        "progress": filling.progress,
        "seconds_left": left,
        "error": filling.error,
        "version": of_version(filling.version) if filling.state == filling_queue.DONE and filling.version else None,
    }
