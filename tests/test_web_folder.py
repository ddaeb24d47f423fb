"""Tests of a folder as the start: next and previous are the page's; results beside the originals, never over them."""

import os

import numpy as np
import pytest

import web_servers
from pconv_jax.errors import UserError
from pconv_jax.web import folder

HOLE = np.zeros((20, 30), bool)
HOLE[4:9, 6:20] = True


def photograph(seed=0):
    return web_servers.png(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8))


@pytest.fixture
def place(tmp_path):
    """Returns a folder of photographs: two in it, one below it, one bad file and one of another kind."""
    path = tmp_path / "photos"
    (path / "sub").mkdir(parents=True)
    for name in ("b.png", "a.png", "sub/c.png"):
        (path / name).write_bytes(photograph(len(name)))
    (path / "bad.jpg").write_bytes(b"nonsense")
    (path / "notes.txt").write_text("text")
    return path


@pytest.fixture
def client(place):
    with web_servers.client(web_servers.Network(), folder.Folder(str(place))) as client:
        yield client


def listed(client):
    return {entry["name"]: entry for entry in client.get("api/session").json()["photographs"]}


def keep(client, identifier, version, **options):
    return client.post(f"api/photographs/{identifier}/versions/{version}/keep", params=options)


def tree(path):
    """Returns the content of every file under a directory."""
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_folder_is_gone_through(client, place):
    """Photographs are listed without being read, filled, and kept in `filled`; the originals have the same bytes."""
    before = tree(place)
    assert client.get("api/session").json()["folder"] == "photos"
    assert list(listed(client)) == ["a.png", "b.png", "bad.jpg", "sub/c.png"]
    assert not any(entry["opened"] or entry["saved"] for entry in listed(client).values())
    for name in ("a.png", "sub/c.png"):
        about = client.get(f"api/photographs/{listed(client)[name]['id']}").json()
        assert about["name"] == name and listed(client)[name]["opened"]
        version = web_servers.fill(client, about, HOLE)["version"]
        answer = keep(client, about["id"], version, format="png")
        assert answer.json() == {"path": f"filled/{name}"} and listed(client)[name]["saved"] == f"filled/{name}"
        assert (place / "filled" / name).read_bytes() == web_servers.saved(client, about, version)
    bad = client.get(f"api/photographs/{listed(client)['bad.jpg']['id']}")
    assert bad.status_code == 422 and bad.json()["error"].startswith("bad.jpg is not an image")
    after = tree(place)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2  # No temporary file is left.
    assert folder.Folder(str(place)).names == ["a.png", "b.png", "bad.jpg", "sub/c.png"]


def test_results_of_another_session_are_replaced_only_on_request(client, place):
    """A result of this session may be saved again; one from before needs `overwrite`."""
    (place / "filled").mkdir()
    (place / "filled" / "a.png").write_text("of an earlier session")
    (place / "filled" / "b.webp").write_text("of an earlier session")
    identifiers = {name: entry["id"] for name, entry in listed(client).items()}
    assert listed(client)["a.png"]["saved"] == "filled/a.png" and listed(client)["b.png"]["saved"] == "filled/b.webp"
    refused = keep(client, identifiers["a.png"], 0)
    assert refused.status_code == 409 and "filled/a.png is already there" in refused.json()["error"]
    assert (place / "filled" / "a.png").read_text() == "of an earlier session"
    assert keep(client, identifiers["a.png"], 0, overwrite=1).status_code == 200
    assert keep(client, identifiers["a.png"], 0).status_code == 200
    assert keep(client, identifiers["b.png"], 0).json() == {"path": "filled/b.png"}


def test_the_original_is_kept_when_the_file_changes(client, place):
    """What was opened is filled, whatever happens to the file meanwhile; closing it forgets it."""
    identifier = listed(client)["a.png"]["id"]
    about = client.get(f"api/photographs/{identifier}").json()
    before = web_servers.saved(client, about, 0)
    (place / "a.png").write_bytes(photograph(99))
    client.session.photographs._cache.clear()
    assert web_servers.saved(client, about, 0) == before
    assert client.delete(f"api/photographs/{identifier}").status_code == 204
    assert not listed(client)["a.png"]["opened"] and not os.listdir(client.folder)
    assert web_servers.saved(client, about, 0) != before
    (place / "b.png").unlink()
    missing = client.get(f"api/photographs/{listed(client)['b.png']['id']}")
    assert missing.status_code == 422 and "No such file" in missing.json()["error"]


def test_thumbnails_open_nothing(client):
    """The strip shows a whole folder, so a thumbnail neither copies a photograph nor opens it."""
    path = f"api/photographs/{listed(client)['a.png']['id']}"
    before = client.get(f"{path}/thumbnail")
    assert before.status_code == 200 and not os.listdir(client.folder)
    assert not listed(client)["a.png"]["opened"] and not client.session.photographs._cache
    client.get(path)
    assert client.get(f"{path}/thumbnail").content == before.content
    bad = client.get(f"api/photographs/{listed(client)['bad.jpg']['id']}/thumbnail")
    assert bad.status_code == 422 and bad.json()["error"].startswith("bad.jpg is not an image")


@pytest.mark.parametrize("target", ["outside", "photos", "photos/sub"])
def test_links_do_not_lead_out_of_filled(client, place, target):
    """A folder of results that is a link could lead to the originals: it is refused, and nothing is written."""
    (place.parent / "outside").mkdir()
    before = tree(place)
    (place / "filled").symlink_to(place.parent / target)
    refused = keep(client, listed(client)["a.png"]["id"], 0, overwrite=1)
    assert refused.status_code == 422 and "remove the link first" in refused.json()["error"]
    (place / "filled").unlink()
    (place / "filled").mkdir()
    (place / "filled" / "sub").symlink_to(place.parent / target)
    assert keep(client, listed(client)["sub/c.png"]["id"], 0, overwrite=1).status_code == 422
    (place / "filled" / "a.png").symlink_to(place / "a.png")
    assert keep(client, listed(client)["a.png"]["id"], 0, overwrite=1).status_code == 200  # The link is replaced.
    assert {name: tree(place)[name] for name in before} == before and not os.listdir(place.parent / "outside")


def test_equal_names_keep_their_extension(tmp_path):
    """Two photographs whose names differ in the extension alone have two results."""
    for name in ("a.png", "a.bmp", "b.jpg"):
        (tmp_path / name).write_bytes(photograph())
    source = folder.Folder(str(tmp_path))
    written = [source.write(name, ".png", b"x", False) for name in source.names]
    assert written == ["filled/a.bmp.png", "filled/a.png.png", "filled/b.png"]


def test_a_full_disk_is_reported(client, place, monkeypatch):
    """The answer is 507 with the system's words, and no part of a file is left."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    answer = keep(client, listed(client)["a.png"]["id"], 0)
    assert answer.status_code == 507 and "No space left" in answer.json()["error"]
    assert not os.listdir(place / "filled")


def test_folders_without_photographs_are_refused(tmp_path):
    """A missing folder, a file and an empty folder are mistakes that the command reports."""
    (tmp_path / "file").write_text("x")
    for name in ("missing", "file", "."):
        with pytest.raises(UserError, match="give a folder of photographs"):
            folder.Folder(str(tmp_path / name))


def test_without_a_folder_nothing_is_kept():
    """The server writes beside photographs only where it was started with their folder."""
    with web_servers.client(web_servers.Network()) as client:
        about = web_servers.open_photograph(client, photograph())
        answer = keep(client, about["id"], 0)
        assert answer.status_code == 422 and "not started with a folder" in answer.json()["error"]
