"""Tests filling in a real browser: comparing, undoing, saved bits, mask files, two tabs, and a server that dies."""

import re
import signal

import cv2
import numpy as np
import pytest

import browser_page
from browser_page import MARKERS, SIZE, places
from pconv_jax.inpainting import photograph

pytest_plugins = ["browser_fixtures"]
pytestmark = pytest.mark.browser
SOURCES = ("rgb8", "rgb16", "rgba", "rotated")


def read(path):
    """Returns a photograph as `pconv_jax.inpaint` reads it."""
    return photograph.read(str(path), max_pixels=10**6)


def test_fill_compare_and_undo(tab, photo):
    """Enter fills, the area is then empty, holding Tab shows the original, and undo brings the area back."""
    page = tab()
    page.open(photo)
    x, y = places(page.screen())[(64, 70)]
    page.tab.mouse.click(x, y)
    area = page.area()
    assert page.percent > 0
    page.fill()
    assert page.percent == 0
    column, row = round(x), round(y)
    page.tab.mouse.move(2, 2)
    blue = MARKERS[64, 70]

    def shows_marker():
        page.settle()
        return np.abs(page.screen()[row, column].astype(int) - blue).max() < 40

    assert not shows_marker()
    page.tab.locator("#stage").focus()
    page.tab.keyboard.down("Tab")
    page.tab.wait_for_selector("#tag-before", state="visible")
    assert shows_marker()
    page.tab.keyboard.up("Tab")
    assert not shows_marker()
    page.tab.keyboard.press("c")
    divider = page.tab.locator("#divider")
    divider.wait_for()
    divider.focus()
    page.tab.keyboard.press("End")
    page.settle()
    assert divider.get_attribute("aria-valuenow") == "100" and shows_marker()
    page.tab.keyboard.press("c")
    page.tab.keyboard.press("Control+z")
    assert (page.area() == area).all() and page.percent > 0
    page.run("show-area")
    assert shows_marker()
    page.tab.keyboard.press("Control+y")
    page.tab.wait_for_timeout(300)
    assert page.percent == 0 and not shows_marker()
    page.tab.keyboard.press("l")
    assert (page.area() == area).all()


def sources(directory):
    """Writes photographs whose bits must survive, and returns their paths by a short description."""
    random = np.random.default_rng(1)
    paths = {name: directory / f"{name}.{'jpg' if name == 'rotated' else 'png'}" for name in SOURCES}
    cv2.imwrite(str(paths["rgb8"]), random.integers(0, 256, (*SIZE, 3), np.uint8))
    cv2.imwrite(str(paths["rgb16"]), random.integers(0, 65536, (*SIZE, 3), np.uint16))
    cv2.imwrite(str(paths["rgba"]), random.integers(0, 256, (*SIZE, 4), np.uint8))
    ok, data = cv2.imencode(".jpg", random.integers(0, 256, (*SIZE[::-1], 3), np.uint8))
    assert ok
    orientation = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(orientation) + 2).to_bytes(2, "big") + orientation
    data = data.tobytes()
    paths["rotated"].write_bytes(data[:2] + segment + data[2:])
    return paths


def test_valid_pixels_are_saved_bit_for_bit(tab, tmp_path):
    """Outside the painted area, the saved PNG has the bits of the source, upright, in all its channels."""
    page = tab()
    for name, path in sources(tmp_path).items():
        bytes_before = path.read_bytes()
        source = read(path)
        assert source.pixels.shape[:2] == SIZE
        page.open(path)
        page.stroke((-60, -40), (70, 30))
        area = page.area()
        page.fill()
        filename, file = page.download("save")
        assert filename == f"{name}_filled.png"
        saved = read(file)
        assert saved.pixels.dtype == source.pixels.dtype and saved.pixels.shape == source.pixels.shape
        np.testing.assert_array_equal(saved.pixels[~area], source.pixels[~area], err_msg=name)
        assert (saved.pixels[area] != source.pixels[area]).mean() > 0.5, name
        if source.alpha is not None:
            np.testing.assert_array_equal(saved.alpha, source.alpha)
        assert path.read_bytes() == bytes_before


def test_a_mask_file_is_loaded_edited_and_saved(tab, photo, tmp_path):
    """A mask file becomes the painted area, exactly; further strokes add to it; a file of another size is explained."""
    mask = np.zeros(SIZE, np.uint8)
    mask[20:40, 30:60] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    cv2.imwrite(str(tmp_path / "small.png"), mask[:50])
    page = tab()
    page.open(photo)
    page.tab.set_input_files("#area-input", tmp_path / "mask.png")
    page.tab.get_by_text("is loaded").wait_for()
    assert (page.area() == (mask > 0)).all()
    page.stroke((0, 100), (50, 100))
    area = page.area()
    assert area[mask > 0].all() and area.sum() > (mask > 0).sum()
    page.tab.set_input_files("#area-input", tmp_path / "small.png")
    page.tab.locator(".message.error").wait_for()
    assert "not resized" in page.tab.locator(".message.error").text_content()
    assert (page.area() == area).all()


def test_unreadable_files_are_explained(tab, photo, tmp_path):
    """A file that is no photograph is reported in words, and the others are opened."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    page = tab()
    page.open(bad, photo)
    assert page.tab.locator(".message.error").text_content()
    assert page.tab.locator("#file-name").text_content() == photo.name


def test_cancelling_keeps_the_painting(tab, photo, web_server):
    """Escape cancels a filling, and the painted area is as it was."""
    page = tab()
    page.open(photo)
    page.stroke((-60, 0), (60, 0))
    area = page.area()
    page.tab.select_option("#ensemble", "8", force=True)
    web_server.process.send_signal(signal.SIGSTOP)  # Else the filling might end before it is cancelled.
    try:
        page.tab.keyboard.press("Enter")
        page.tab.wait_for_selector("[data-command=cancel]", state="visible")
        page.tab.keyboard.press("Escape")
    finally:
        web_server.process.send_signal(signal.SIGCONT)
    page.tab.wait_for_selector("[data-command=fill]", state="visible")
    assert (page.area() == area).all()


def test_a_filling_that_ends_before_it_is_cancelled(tab, photo, web_server):
    """Its result is neither shown nor kept; a file that is saved without a filling is said to lack it."""
    page = tab()
    page.open(photo)
    page.stroke((-60, 0), (60, 0))
    area = page.area()
    page.tab.route(re.compile(r"/api/fillings/\w+$"), lambda route: route.abort())  # Only cancelling has no query.
    web_server.process.send_signal(signal.SIGSTOP)
    try:
        page.tab.keyboard.press("Enter")
        page.tab.wait_for_selector("[data-command=cancel]", state="visible")
        page.tab.keyboard.press("Escape")
    finally:
        with page.tab.expect_response(lambda answer: answer.request.method == "DELETE") as forgotten:
            web_server.process.send_signal(signal.SIGCONT)
    assert forgotten.value.status == 204 and "/versions/1" in forgotten.value.url
    page.tab.wait_for_selector("[data-command=fill]", state="visible")
    assert (page.area() == area).all()
    with page.tab.expect_download():
        page.tab.keyboard.press("Control+s")
    page.tab.get_by_text("not filled in the saved file").wait_for()


def test_the_choice_of_a_network_is_kept_among_the_same_networks(tab):
    """The page remembers a network after a reload; a server that offers others starts with its first one."""
    page, names = tab(), ["one", "two"]

    def session(route):
        answer = route.fetch()
        weights = [{"id": str(i), "name": n, "description": n, "default": not i} for i, n in enumerate(names)]
        route.fulfill(response=answer, json={**answer.json(), "weights": weights})

    def chosen():
        page.tab.reload()
        page.tab.locator("#weights option").first.wait_for(state="attached")
        return page.tab.evaluate("document.getElementById('weights').selectedOptions[0].text")

    page.tab.route(re.compile("/api/session$"), session)
    assert chosen() == "one"
    page.tab.select_option("#weights", "two", force=True)
    assert chosen() == "two"
    names[0] = "three"
    assert chosen() == "three"


def test_a_folder_is_gone_through(browser, tmp_path, photo):
    """The page goes through a folder, tells what cannot be read, and saves beside the originals, never over them."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    for name in ("b.png", "c.png", "d.png"):
        (folder / name).write_bytes(photo.read_bytes())
    server = browser_page.Server(tmp_path, folder)
    server.start()
    try:
        page = browser_page.Page(browser.new_page(), server.address)
        page.tab.locator("#loading", has_text="a.png").wait_for()
        for name in ("b.png", "c.png"):
            page.tab.keyboard.press("PageDown")
            page.tab.locator("#file-name", has_text=name).wait_for()
        page.tab.wait_for_selector("#zoom", state="visible")
        page.stroke((0, 0), (40, 20))
        area = page.area()
        page.fill()
        page.tab.keyboard.press("Control+s")
        page.tab.get_by_text("Saved as filled/c.png").wait_for()
        saved, source = (read(folder / name) for name in ("filled/c.png", "c.png"))
        np.testing.assert_array_equal(saved.pixels[~area], source.pixels[~area])
        page.tab.keyboard.press("PageUp")
        page.tab.locator("#file-name", has_text="b.png").wait_for()
        assert (folder / "c.png").read_bytes() == photo.read_bytes()
        server.kill()
        server.start()
        for name in ("c.png", "d.png"):  # The page had not opened the last one; the server now has another name for it.
            page.tab.keyboard.press("PageDown")
            page.tab.locator("#file-name", has_text=name).wait_for()
        page.tab.wait_for_selector("#zoom", state="visible")
        page.tab.context.close()
    finally:
        server.stop()


def test_two_tabs_fill_at_the_same_time(tab, photo):
    """Two tabs fill one after the other, and each gets its own result."""
    pages = [tab(), tab()]
    for page, dx in zip(pages, (-80, 80), strict=True):
        page.open(photo)
        page.stroke((dx, 0), (dx, 40))
    areas = [page.area() for page in pages]
    for page in pages:
        page.tab.keyboard.press("Enter")
        page.settle()
    for page, area in zip(pages, areas, strict=True):
        page.filled()
        _, file = page.download("save")
        saved, source = (read(path).pixels for path in (file, photo))
        np.testing.assert_array_equal(saved[~area], source[~area])
        assert (saved[area] != source[area]).any()


def test_nothing_is_lost_when_the_server_dies(tab, photo, tmp_path):
    """A server that is killed while it fills is missed in words, nothing is lost, and work goes on when it is back."""
    server = browser_page.Server(tmp_path)
    server.start()
    try:
        page = tab(server.address)
        page.open(photo)
        page.stroke((-80, 0), (-80, 40))
        page.fill()
        page.stroke((80, 0), (80, 40))
        area = page.area()
        page.tab.select_option("#ensemble", "8", force=True)  # Compiles for the turned photograph: takes long enough.
        page.tab.keyboard.press("Enter")
        page.tab.wait_for_selector("[data-command=cancel]", state="visible")
        server.kill()
        page.tab.locator("#banner", has_text="The server does not answer").wait_for()
        server.start()
        page.tab.wait_for_selector("#banner", state="hidden")
        page.filled()
        page.tab.keyboard.press("Control+z")
        assert (page.area() == area).all()
        page.tab.keyboard.press("Control+y")
        page.tab.wait_for_timeout(300)
        _, file = page.download("save")
        saved, source = (read(path).pixels for path in (file, photo))
        changed = (saved != source).any(axis=-1)
        server.kill()
        server.token = "another-" + server.token
        server.start()
        with page.tab.expect_download() as download:
            page.tab.keyboard.press("Control+s")
            page.tab.fill("#banner-address", server.address)
            page.tab.keyboard.press("Enter")
        assert (read(download.value.path()).pixels == saved).all(), "the page goes on under the new address"
        assert changed[area].mean() > 0.5 and changed.sum() > changed[area].sum(), "both fillings are in the result"
    finally:
        server.stop()


def test_no_request_leaves_the_machine(tab, requests):
    """All requests of all tests of this file went to the servers on this machine."""
    tab()
    outside = [url for url in requests if not re.match(r"http://127\.0\.0\.1:\d+/|blob:http://127\.0\.0\.1|data:", url)]
    assert not outside and len(requests) > 40
