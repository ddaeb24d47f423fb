"""Servers of the page without a socket: networks that cost nothing, and a client that knows the token."""

import contextlib
import tempfile
import threading
import time

import imagecodecs
import numpy as np
from starlette import testclient

from pconv_jax.inpainting import inpainter
from pconv_jax.web import app, networks, security, session

TOKEN = "t" * 43


class Network:
    """Fills holes with a value that depends on the valid pixels, and waits where a test wants it to.

    Attributes:
      gate: fillings wait for it after each of their `parts`.
      calls: number of fillings that have started.
      first: the fraction that is reported before the first part.
      error: raised instead of filling, if there is one.
    """

    def __init__(self, parts=1):
        self.gate, self.calls, self.error, self.parts, self.first, self.prepared = (
            threading.Event(),
            0,
            None,
            parts,
            0.0,
            [],
        )
        self.gate.set()
        self.sides = [64, 1024]

    def with_ensemble(self, ensemble):
        inpainter._checked_ensemble(ensemble)
        return self

    def prepare(self, side):
        self.prepared.append(side)

    def fill(self, image, mask, *, progress=None):
        self.calls += 1
        if self.error:
            raise self.error
        progress(self.first)
        for part in range(self.parts):
            assert self.gate.wait(60)
            progress((part + 1) / self.parts)
        value = image[mask == 1].mean(axis=0).astype(image.dtype)
        return np.where(mask[..., None] == 1, image, value + 3 * (self.calls % 40)).astype(image.dtype), 0.0


@contextlib.contextmanager
def client(network, source=None, host="127.0.0.1", **options):
    """Yields a client whose paths are relative to the token, with `session`, `folder` and `network` as attributes."""
    choices = {name: networks.Choice(name, name.title(), f"{name} network", network) for name in ("first", "second")}
    with tempfile.TemporaryDirectory() as folder:
        held = session.Session(choices, folder, source=source, **options)
        guarded = security.Guard(app.create(held), TOKEN, host)
        try:
            with testclient.TestClient(guarded, base_url=f"http://127.0.0.1/{TOKEN}/") as made:
                made.session, made.folder, made.network = held, folder, network
                yield made
        finally:
            if isinstance(network, Network):
                network.gate.set()
            assert held.queue.stop(60)


def png(array):
    """Returns the bytes of a PNG."""
    return imagecodecs.png_encode(np.squeeze(array))


def pixels(encoded):
    """Returns the pixels of an image file as `[H, W, C]`."""
    array = imagecodecs.imread(encoded)
    return array[..., None] if array.ndim == 2 else array


def open_photograph(client, encoded, name="photo.png"):
    """Sends a photograph and returns its description."""
    answer = client.post("api/photographs", params={"name": name}, content=encoded)
    assert answer.status_code == 201, answer.text
    return answer.json()


def start(client, photograph, mask, **options):
    """Starts a filling and returns its description; `mask` is bool `[H, W]`, True = hole."""
    path = f"api/photographs/{photograph['id']}/fillings"
    answer = client.post(path, params=options, content=png(mask * np.uint8(255)))
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(client, filling):
    """Returns a filling's description when it has ended."""
    for _ in range(60):
        if filling["state"] not in ("queued", "running"):
            return filling
        filling = client.get(f"api/fillings/{filling['id']}", params={"wait": 1}).json()
    raise AssertionError(filling)


def until(condition):
    """Waits until a function returns something true, at most a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def fill(client, photograph, mask, **options):
    """Fills a hole and returns the new version."""
    filling = ended(client, start(client, photograph, mask, **options))
    assert filling["state"] == "done", filling
    return filling["version"]


def saved(client, photograph, version, format="original"):
    """Returns the bytes of the file of a version."""
    path = f"api/photographs/{photograph['id']}/versions/{version}/file"
    answer = client.get(path, params={"format": format})
    assert answer.status_code == 200, answer.text
    return answer.content
