"""Tests of starting and ending the server: flags, addresses, ports, and a clean end on Ctrl-C."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser

import numpy as np
import pytest
from absl import flags

import web_servers
from pconv_jax.errors import UserError
from pconv_jax.web import __main__ as command
from pconv_jax.web import serving

ROOT = pathlib.Path(__file__).resolve().parents[1]


def call(*arguments):
    """Calls the command with flags and positional arguments."""
    flag_values = flags.FlagValues()
    command.define_flags(flag_values)
    return command.main(flag_values, *flag_values(command._spelled(["web", *arguments]))[1:])


def test_ctrl_c_ends_cleanly(tmp_path):
    """The server answers, and ends on SIGINT while it fills: exit code 0, no traceback, no files."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "JAX_PLATFORMS": "cpu", "PCONV_PYTHON": sys.executable}
    environment.pop(command.TOKEN, None)
    arguments = ["./launch.sh", "web", "--no-browser", "--port=0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=ROOT, env=environment, **pipes) as process:
        try:
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", address)
            assert "Ctrl-C ends the server" in process.stdout.readline()
            with urllib.request.urlopen(f"{address}api/session") as answer:
                assert b'"pretrained"' in answer.read()
            with pytest.raises(urllib.error.HTTPError, match="403") as refused:
                urllib.request.urlopen(f"{address.rsplit('/', 2)[0]}/x/api/session")
            refused.value.close()
            photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
            with urllib.request.urlopen(f"{address}api/photographs", web_servers.png(photo)) as answer:
                identifier = re.search(rb'"id":"(\w+)"', answer.read())[1].decode()
            mask = np.zeros((64, 64), np.uint8)
            mask[20:40, 20:40] = 255
            path = f"{address}api/photographs/{identifier}/fillings"
            with urllib.request.urlopen(path, web_servers.png(mask)) as answer:
                filling = re.search(rb'"id":"(\w+)"', answer.read())[1].decode()
            waiting = threading.Thread(target=_wait, args=(f"{address}api/fillings/{filling}?wait=5",))
            waiting.start()
            time.sleep(0.2)
            assert [name for name in os.listdir(tmp_path) if name.startswith("pconv_web_")]
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
            waiting.join(60)
        finally:
            process.kill()
    assert process.returncode == 0 and out == "stopped\n"
    assert not re.search(r"Traceback|rror|^[EF]\d{4} ", err, re.MULTILINE), err
    assert not [name for name in os.listdir(tmp_path) if name.startswith("pconv_web_")]


def _wait(address):
    """Waits for an answer, which may fail as the server ends."""
    with contextlib.suppress(OSError), urllib.request.urlopen(address) as answer:
        answer.read()


def test_a_taken_port_is_reported():
    """A port that was asked for must be free; the default one gives way to another."""
    with serving.bind("127.0.0.1", 0, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port={port} on 127.0.0.1 cannot be used \(.*in use\): choose another"):
            call(f"--port={port}")
        with serving.bind("127.0.0.1", None, port) as other:
            assert other.getsockname()[1] != port
    with serving.bind("127.0.0.1", None, port) as free:
        assert free.getsockname()[1] == port


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_other_machines_need_permission(host, monkeypatch):
    """A host beyond loopback is refused with what it would mean, unless --allow-remote is given."""
    monkeypatch.setattr(serving, "bind", lambda *_: pytest.fail("bound"))
    with pytest.raises(
        UserError, match=r"lets other machines use the page: .* nothing is encrypted. Give --allow-remote"
    ):
        call(f"--host={host}")


def test_allowed_hosts_are_bound(monkeypatch):
    """With --allow-remote the host is bound."""

    def bound(*arguments):
        raise InterruptedError(*arguments)

    monkeypatch.setattr(serving, "bind", bound)
    with pytest.raises(InterruptedError, match=r"0\.0\.0\.0"):
        call("--host=0.0.0.0", "--allow-remote", "--port=80")


@pytest.mark.parametrize("token", ["short", "x" * 31, "ü" * 40, "a/" * 20])
def test_weak_tokens_are_refused(token, monkeypatch):
    """A token of the environment has 32 or more characters that need no escape in an address."""
    monkeypatch.setenv(command.TOKEN, token)
    with pytest.raises(UserError, match="needs 32 or more letters"):
        call()


def test_a_missing_folder_or_network_is_reported(tmp_path, monkeypatch):
    """What does not exist is reported before anything is served."""
    monkeypatch.setattr(serving, "run", lambda *_: pytest.fail("served"))
    with pytest.raises(UserError, match="is not a directory: give a folder of photographs"):
        call(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no weights at"):
        call(f"--weights={tmp_path / 'missing'}", "--port=0", "--nocompilation_cache")


def test_hosts_in_addresses(monkeypatch):
    """Addresses of IPv6 stand in brackets, and a server for all addresses is opened by its loopback one."""
    assert [command._shown(host) for host in ("127.0.0.1", "::1", "0.0.0.0", "::")] == [
        "127.0.0.1",
        "[::1]",
        "127.0.0.1",
        "[::1]",
    ]
    try:
        serving.bind("::1", 0, 0).close()
    except (UserError, socket.gaierror):
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize(("kind", "opened"), [(webbrowser.GenericBrowser, 0), (webbrowser.BackgroundBrowser, 1)])
def test_only_browsers_with_windows_are_opened(kind, opened, monkeypatch, capsys):
    """A browser in the terminal would hide the address; where there is no browser at all, the address is enough."""
    calls, browser = [], kind("true")
    monkeypatch.setattr(browser, "open", calls.append, raising=False)
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    command._open("http://127.0.0.1:1/x/")
    assert calls == ["http://127.0.0.1:1/x/"] * opened
    monkeypatch.setattr(webbrowser, "get", lambda: (_ for _ in ()).throw(webbrowser.Error))
    command._open("http://127.0.0.1:1/x/")
    command._announce("http://127.0.0.1:1/x/", "photos", False, True)
    out = capsys.readouterr().out
    assert "results go to photos/filled" in out and f"({socket.gethostname()})" in out
