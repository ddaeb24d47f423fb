"""Fixtures of the tests in a real browser: one server and one browser for all of them."""

import contextlib

import cv2
import numpy as np
import pytest

import browser_page


@pytest.fixture(scope="session")
def web_server(browser):
    running = browser_page.Server()
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = browser_page.executable()
    if path is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def requests():
    """The addresses of all requests of all tabs."""
    return []


@pytest.fixture
def tab(browser, web_server, requests):
    """Returns a function that opens the page in a new tab of a fresh browser profile."""
    with contextlib.ExitStack() as stack:
        stack.callback(web_server.forget)
        pages = []

        def make(address=web_server.address, **options):
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            stack.callback(context.close)
            context.on("request", lambda request: requests.append(request.url))
            pages.append(browser_page.Page(context.new_page(), address))
            return pages[-1]

        yield make
        assert [page.errors for page in pages] == [[] for _ in pages]


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """A photograph with three coloured markers of 5 x 5 pixels on grey noise."""
    image = np.random.default_rng(0).integers(90, 160, (*browser_page.SIZE, 1), np.uint8).repeat(3, axis=2)
    for (x, y), colour in browser_page.MARKERS.items():
        image[y - 2 : y + 3, x - 2 : x + 3] = colour
    path = tmp_path_factory.mktemp("photographs") / "markers.png"
    cv2.imwrite(str(path), image[..., ::-1])
    return path
