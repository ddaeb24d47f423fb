"""Tests of downloads: the right file arrives, or nothing and the reason within seconds."""

import hashlib
import socket

import pytest

import loopback
from pconv_jax.tools import download

CONTENT = b"weights" * 100_000
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def test_checksum(tmp_path):
    """A checksum is compared in full or by its first digits."""
    (tmp_path / "x").write_bytes(b"weights")
    download.check(str(tmp_path / "x"), f"md5:{hashlib.md5(b'weights').hexdigest()}", "mend it")
    download.check(str(tmp_path / "x"), f"sha256:{hashlib.sha256(b'weights').hexdigest()[:8]}", "mend it")
    with pytest.raises(ValueError, match=r"x has md5 \w{4}; needs 0000: mend it$"):
        download.check(str(tmp_path / "x"), "md5:0000", "mend it")


def test_file(tmp_path, capfd):
    """The file is written, and the amount and the rate are shown on stderr."""
    with loopback.serving(CONTENT) as url:
        download.fetch(url, str(tmp_path / "x"), CHECKSUM)
    assert (tmp_path / "x").read_bytes() == CONTENT
    shown = capfd.readouterr().err
    assert shown.startswith("0.7 of 0.7 MB, ") and " MB/s, 0 s left" in shown


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ({"content": b"page"}, ValueError, r"has sha256 \w+; needs \w+: the server at http://127.* sent another file"),
        ({"content": b"", "status": 404}, download.Unreachable, r"^HTTP Error 404: Not Found$"),
        (
            {"content": CONTENT[:300_000], "length": 700_000},
            download.Unreachable,
            r"^the connection broke after 0.3 of 0.7 MB$",
        ),
    ],
)
def test_bad_answers_leave_nothing(tmp_path, answer, error, message):
    with loopback.serving(**answer) as url, pytest.raises(error, match=message):
        download.fetch(url, str(tmp_path / "x"), CHECKSUM)
    assert not list(tmp_path.iterdir())


def test_silence(tmp_path):
    """A server or firewall that accepts the connection and never answers is given up on after the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(download.Unreachable, match=r"^no answer within 0.2 s$"):
            download.fetch(url, str(tmp_path / "x"), CHECKSUM, connect_s=0.2)
        hub = download.HubFile("a/b", loopback.COMMIT, "c", url, str(tmp_path))
        with pytest.raises(download.Unreachable, match=r"no answer within 0.2 s|timed out"):
            download.fetch_hub(hub, CHECKSUM, connect_s=0.2)
    assert not list(tmp_path.iterdir())


def test_hub(tmp_path):
    """A file of the hub is downloaded once, then read from the cache; one with a wrong checksum is removed from it."""
    with loopback.serving(CONTENT) as url:
        hub = download.HubFile("a/b", loopback.COMMIT, "c.safetensors", url, str(tmp_path / "cache"))
        with pytest.raises(ValueError, match=r"has sha256 .*; needs 0000: it was removed from the cache: run again"):
            download.fetch_hub(hub, "sha256:0000")
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == len(CONTENT)]
        path = download.fetch_hub(hub, CHECKSUM)
    assert download.fetch_hub(hub, CHECKSUM) == path  # The server has stopped.
    with open(path, "rb") as file:
        assert file.read() == CONTENT


def test_hub_says_no(tmp_path):
    with loopback.serving(b"", status=404) as url:
        hub = download.HubFile("a/b", loopback.COMMIT, "c", url, str(tmp_path))
        with pytest.raises(download.Unreachable, match="404"):
            download.fetch_hub(hub, CHECKSUM)
