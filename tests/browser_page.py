"""Drives the page of `pconv_jax.web` in a real browser, as a person would: by pointer, keys and files."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cv2
import numpy as np

TOKEN = "a-token-of-the-tests-0123456789-abcdefgh"
ROOT = pathlib.Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "google-chrome", "chromium-browser")
MILLISECONDS = 60_000  # Time limit of each wait: the machine may be busy.

SIZE = (96, 128)  # Height and width of the small photographs: filled fast, and compiled once.
MARKERS = {(30, 24): (255, 0, 0), (100, 20): (0, 255, 0), (64, 70): (0, 0, 255)}  # Colour by the centre's (x, y).


def executable():
    """Returns the path of an installed browser, or None."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


class Server:
    """A server in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, directory=None, folder=None):
        """Chooses a port.

        Args:
          directory: for temporary files, which a server that is killed leaves behind.
          folder: the folder of photographs to go through.
        """
        self.arguments = [] if folder is None else [str(folder)]
        self.environment = {} if directory is None else {"TMPDIR": str(directory)}
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.token = TOKEN
        self.origin = f"http://127.0.0.1:{self.port}"
        self.process = None

    @property
    def address(self):
        return f"{self.origin}/{self.token}/"

    def start(self):
        command = [sys.executable, "-m", "pconv_jax.web", *self.arguments, f"--port={self.port}", "--nobrowser"]
        environment = {**os.environ, "PCONV_WEB_TOKEN": self.token, "JAX_PLATFORMS": "cpu", **self.environment}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + MILLISECONDS / 1000
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{self.address}api/session").close()
                return
            time.sleep(0.1)
        raise AssertionError(f"the server did not start; its exit code is {self.process.poll()}")

    def forget(self):
        """Closes all photographs, so that the next tab starts empty."""
        with urllib.request.urlopen(f"{self.address}api/session") as answer:
            photographs = json.load(answer)["photographs"]
        for photograph in photographs:
            address = f"{self.address}api/photographs/{photograph['id']}"
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()

    def kill(self):
        """Ends the process without giving it a chance to tidy up."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Ends the process as Ctrl-C does, and returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


class Page:
    """The page in one tab of the browser."""

    def __init__(self, tab, address):
        self.tab = tab
        self.errors = []
        tab.set_default_timeout(MILLISECONDS)
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.goto(address, wait_until="networkidle")  # The page starts once it has the session.

    def open(self, *paths):
        """Opens photographs by the file dialog's input, and waits for the last that can be read."""
        self.tab.set_input_files("#file-input", paths)
        self.tab.locator("#file-name", has_text=paths[-1].name).wait_for()
        self.tab.wait_for_selector("#zoom", state="visible")
        self.settle()

    def settle(self):
        """Waits until the browser has painted what was asked for."""
        self.tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, command):
        """Presses the button of a command, which may lie in a panel."""
        self.tab.locator(f"[data-command={command}]").first.dispatch_event("click")
        self.settle()

    @property
    def middle(self):
        """The middle of the stage, in CSS pixels."""
        box = self.tab.locator("#stage").bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def stroke(self, *points, button="left"):
        """Draws a stroke through points, given in CSS pixels from the middle of the stage."""
        x, y = self.middle
        self.tab.mouse.move(x + points[0][0], y + points[0][1])
        self.tab.mouse.down(button=button)
        for dx, dy in points[1:]:
            self.tab.mouse.move(x + dx, y + dy, steps=4)
        self.tab.mouse.up(button=button)
        self.settle()

    def screen(self):
        """Returns a picture of the tab, `[H, W, 3]` in RGB, in pixels of the screen."""
        data = np.frombuffer(self.tab.screenshot(), np.uint8)
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    @property
    def share(self):
        """The text about how much is painted, or how far the filling is."""
        self.settle()
        return self.tab.locator("#share").text_content()

    @property
    def percent(self):
        """The painted share of the photograph in percent, as the page shows it."""
        painted = re.search(r"([\d.]+) % is painted", self.share)
        return float(painted[1]) if painted else 0.0

    def download(self, command, timeout=MILLISECONDS):
        """Runs a command that saves a file, and returns the file's name and path."""
        with self.tab.expect_download(timeout=timeout) as event:
            self.run(command)
        return event.value.suggested_filename, pathlib.Path(event.value.path())

    def area(self):
        """Returns the painted area as the page saves it: bool `[H, W]`, True where it is painted."""
        from playwright import sync_api  # Here, because the tests of this file's caller are skipped without it.

        path = None
        for _ in range(3):  # The text may be a moment older than the area, and then nothing is saved.
            if not self.percent:
                width, height = re.findall(r"\d+", self.tab.locator("#file-facts").text_content())[:2]
                return np.zeros((int(height), int(width)), bool)
            try:
                _, path = self.download("save-area", timeout=10_000)
                break
            except sync_api.TimeoutError:
                continue
        assert path is not None, "the page did not save the painted area"
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(mask)) <= {0, 255}
        return mask > 0

    def fill(self):
        """Fills the painted area and waits for the result."""
        self.tab.keyboard.press("Enter")
        self.settle()
        self.filled()

    def filled(self):
        """Waits for the result of a filling that was started."""
        self.tab.wait_for_selector("[data-command=fill]", state="visible", timeout=5 * MILLISECONDS)
        assert not self.percent, "the filling failed or was cancelled"


def places(screen):
    """Returns the centres of the visible markers in pixels of the screen, by the markers' centres."""
    found = {}
    for centre, colour in MARKERS.items():
        rows, columns = np.nonzero((np.abs(screen.astype(int) - colour) < 40).all(axis=-1))
        if len(rows) > 4:
            found[centre] = (columns.mean() + 0.5, rows.mean() + 0.5)
    return found
