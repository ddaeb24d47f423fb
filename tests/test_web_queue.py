"""Tests of the queue of fillings: turns, progress, cancelling, limits, errors, and preparing the network."""

import numpy as np
import pytest

import web_servers
from pconv_jax.web import filling_queue, session

HEIGHT, WIDTH = 30, 40
HOLE = np.zeros((HEIGHT, WIDTH), bool)
HOLE[4:9, 6:20] = True
OTHER = np.zeros((HEIGHT, WIDTH), bool)
OTHER[7:15, 15:25] = True
PHOTO, DEEP = (
    web_servers.png(np.random.default_rng(1).integers(0, white, (HEIGHT, WIDTH, 3)).astype(dtype))
    for white, dtype in ((256, np.uint8), (65536, np.uint16))
)


@pytest.fixture
def slow():
    """Yields a client whose network waits for `network.gate`."""
    with web_servers.client(web_servers.Network(parts=4)) as client:
        client.network.gate.clear()
        yield client


def test_fillings_wait_for_their_turn(slow):
    """One filling runs; the others have positions in the order in which they came, whichever photograph they are of."""
    about = [web_servers.open_photograph(slow, encoded) for encoded in (PHOTO, DEEP)]
    started = [web_servers.start(slow, about[index % 2], HOLE) for index in range(3)]

    def states():
        listed = {entry["id"]: entry for entry in slow.get("api/session").json()["fillings"]}
        return [(listed[entry["id"]]["state"], listed[entry["id"]]["position"]) for entry in started]

    slow.get(f"api/fillings/{started[0]['id']}", params={"wait": 2})
    assert states() == [("running", 0), ("queued", 1), ("queued", 2)]
    cancelled = slow.delete(f"api/fillings/{started[1]['id']}").json()
    assert (cancelled["state"], cancelled["position"], cancelled["version"]) == ("cancelled", None, None)
    assert states() == [("running", 0), ("cancelled", None), ("queued", 1)]
    slow.network.gate.set()
    assert [web_servers.ended(slow, entry)["state"] for entry in started] == ["done", "cancelled", "done"]
    assert slow.delete(f"api/fillings/{started[0]['id']}").json()["state"] == "done"
    assert slow.network.calls == 2


def test_a_running_filling_is_cancelled_between_tiles(slow):
    """It is cancelled at once, leaves no version, and the next one runs."""
    about = web_servers.open_photograph(slow, PHOTO)
    first = web_servers.start(slow, about, HOLE)
    web_servers.until(lambda: slow.get(f"api/fillings/{first['id']}").json()["progress"] is not None)
    assert slow.delete(f"api/fillings/{first['id']}").json()["state"] == "cancelled"
    second = web_servers.start(slow, about, OTHER)
    slow.network.gate.set()
    assert web_servers.ended(slow, second)["version"]["version"] == 1
    assert slow.get(f"api/fillings/{first['id']}").json()["state"] == "cancelled"
    assert len(slow.get(f"api/photographs/{about['id']}").json()["versions"]) == 1


def test_progress_and_the_time_left(slow):
    """Both are there as soon as a part is done, and gone when the filling has ended."""
    about = web_servers.open_photograph(slow, PHOTO)
    slow.network.first = 0.25
    filling = web_servers.start(slow, about, HOLE)
    web_servers.until(lambda: slow.get(f"api/fillings/{filling['id']}").json()["progress"] is not None)
    filling = slow.get(f"api/fillings/{filling['id']}").json()
    assert (filling["state"], filling["progress"]) == ("running", 0.25) and filling["seconds_left"] >= 0
    slow.network.gate.set()
    assert web_servers.ended(slow, filling)["seconds_left"] is None


def test_a_page_that_goes_away_loses_nothing(slow):
    """A filling goes on without its page; a page that comes back finds it, and its version."""
    about = web_servers.open_photograph(slow, PHOTO)
    web_servers.start(slow, about, HOLE)
    slow.network.gate.set()
    web_servers.until(lambda: slow.get("api/session").json()["fillings"][0]["state"] == "done")
    assert [entry["version"] for entry in slow.get(f"api/photographs/{about['id']}").json()["versions"]] == [1]


def test_closing_a_photograph_cancels_its_fillings(slow):
    """The running one and those that wait are cancelled, and nothing of them is left."""
    about = web_servers.open_photograph(slow, PHOTO)
    started = [web_servers.start(slow, about, HOLE) for _ in range(2)]
    assert slow.delete(f"api/photographs/{about['id']}").status_code == 204
    slow.network.gate.set()
    assert [web_servers.ended(slow, entry)["state"] for entry in started] == ["cancelled"] * 2
    other = web_servers.open_photograph(slow, PHOTO)
    assert web_servers.fill(slow, other, HOLE)["version"] == 1
    assert slow.post(f"api/photographs/{about['id']}/fillings", content=b"").status_code == 404
    assert slow.get("api/fillings/unknown").status_code == 404


def test_the_queue_is_limited(slow, monkeypatch):
    """Beyond its length fillings are refused, and those that ended long ago are forgotten."""
    monkeypatch.setattr(filling_queue, "MOST_WAITING", 2)
    monkeypatch.setattr(filling_queue, "_ENDED_KEPT", 1)
    about = web_servers.open_photograph(slow, PHOTO)
    first = web_servers.start(slow, about, HOLE)
    web_servers.until(lambda: slow.get(f"api/fillings/{first['id']}").json()["state"] == "running")
    started = [web_servers.start(slow, about, HOLE) for _ in range(2)]
    path = f"api/photographs/{about['id']}/fillings"
    answer = slow.post(path, content=web_servers.png(HOLE * np.uint8(255)))
    assert answer.status_code == 429 and "2 fillings are waiting" in answer.json()["error"]
    slow.network.gate.set()
    assert [web_servers.ended(slow, entry)["state"] for entry in [first, *started]] == ["done"] * 3
    web_servers.fill(slow, about, HOLE)
    assert slow.get(f"api/fillings/{first['id']}").status_code == 404


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("no more"), "is 40x30, too large for this machine: start the server with a lower --tile"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ZeroDivisionError("a defect"), "a defect of the program (ZeroDivisionError): the terminal shows where it is"),
    ],
)
def test_errors_while_filling(error, message, capsys):
    """An error is the filling's, defects go to the terminal, and the next filling runs."""
    network = web_servers.Network()
    with web_servers.client(network) as client:
        about = web_servers.open_photograph(client, PHOTO)
        network.error = error
        filling = web_servers.ended(client, web_servers.start(client, about, HOLE))
        assert filling["state"] == "failed" and message in filling["error"]
        assert ("ZeroDivisionError" in capsys.readouterr().err) == isinstance(error, ZeroDivisionError)
        network.error = None
        assert web_servers.fill(client, about, HOLE)["version"] == 1


def test_the_network_is_prepared_for_the_photographs(monkeypatch):
    """The functions for small photographs are compiled at the start, those for large ones when one is opened."""
    monkeypatch.setattr(session, "_SOON", 64)
    with web_servers.client(web_servers.Network()) as client:
        about = web_servers.open_photograph(client, PHOTO)
        web_servers.fill(client, about, HOLE)
        web_servers.fill(client, about, HOLE)
        assert client.network.prepared == [64]
        web_servers.open_photograph(client, web_servers.png(np.zeros((9, 65), np.uint8)))
        web_servers.open_photograph(client, web_servers.png(np.zeros((9, 65), np.uint8)))
        web_servers.until(lambda: client.network.prepared == [64, 1024])
