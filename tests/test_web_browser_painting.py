"""Tests painting in a real browser: the mask lands where the pointer was, and every step can be undone."""

import cv2
import numpy as np
import pytest

from browser_page import places

pytest_plugins = ["browser_fixtures"]
pytestmark = pytest.mark.browser


@pytest.mark.parametrize("ratio", [1, 1.5, 2])
def test_the_mask_lands_where_the_pointer_was(tab, photo, ratio):
    """At several zooms and pixel ratios, a click on a marker that is seen on the screen marks the marker's pixels."""
    page = tab(device_scale_factor=ratio)
    page.open(photo)
    for _ in range(12):
        page.tab.keyboard.press("[")
    for zoom in ("fit", "actual-size", "closer", "far"):
        if zoom == "closer":
            page.tab.mouse.move(page.middle[0] + 7, page.middle[1] + 5)
            page.tab.mouse.wheel(0, -700)
        elif zoom == "far":
            page.tab.mouse.wheel(0, 300)
        else:
            page.run(zoom)
        page.tab.mouse.move(2, 2)
        page.settle()
        visible = places(page.screen())
        assert visible, zoom
        for (x, y), (column, row) in list(visible.items())[: 2 if zoom == "fit" else 1]:
            page.tab.mouse.click(column / ratio, row / ratio)
            rows, columns = np.nonzero(page.area())
            assert abs(columns.mean() - x) <= 1 and abs(rows.mean() - y) <= 1, (zoom, ratio)
            assert np.ptp(columns) < 9, (zoom, ratio)
            page.run("clear")


def test_what_is_painted_is_shown_there(tab, photo):
    """Painted pixels are tinted on the screen, others are not, and hiding the area shows the photograph alone."""
    page = tab(device_scale_factor=1.5)
    page.open(photo)
    page.tab.mouse.move(2, 2)
    before = page.screen().astype(int)
    page.stroke((-60, 0), (60, 0))
    page.tab.mouse.move(2, 2)
    page.settle()
    after = page.screen().astype(int)
    x, y = (round(1.5 * value) for value in page.middle)
    assert (after - before)[y, x, 0] > 40 and (after - before)[y, x, 1] < -20
    assert np.abs(after - before)[y - 200 : y - 150, x - 100 : x + 100].max() == 0
    page.tab.keyboard.press("m")
    page.settle()
    assert np.abs(page.screen().astype(int) - before)[y - 100 : y + 100, x - 100 : x + 100].max() == 0


def test_paint_erase_zoom_undo_redo(tab, photo):
    """Every stroke is one step of the history; the right button and E erase; undo and redo restore every pixel."""
    page = tab()
    page.open(photo)
    areas = [page.area()]

    def changed():
        areas.append(page.area())
        assert (areas[-1] != areas[-2]).any()

    page.stroke((-200, -80), (150, 60))
    changed()
    page.stroke((-30, -60), (0, 60), button="right")
    changed()
    assert (areas[-1] <= areas[-2]).all()
    page.tab.mouse.wheel(0, -600)
    page.stroke((-100, 0), (100, 90))
    changed()
    page.tab.keyboard.press("e")
    page.stroke((0, 0), (300, 300))
    changed()
    page.tab.keyboard.press("r")
    page.tab.keyboard.press("0")
    page.stroke((-150, 60), (-50, 160))
    changed()
    page.tab.keyboard.press("g")
    changed()
    assert (areas[-1] >= areas[-2]).all()
    page.tab.keyboard.press("Shift+G")
    changed()
    page.tab.keyboard.press("i")
    changed()
    assert (areas[-1] != areas[-2]).all()
    page.tab.keyboard.press("Delete")
    changed()
    assert not areas[-1].any()
    for expected in reversed(areas[:-1]):
        page.tab.keyboard.press("Control+z")
        assert (page.area() == expected).all()
    for expected in areas[1:]:
        page.tab.keyboard.press("Control+Shift+z")
        assert (page.area() == expected).all()


def test_strokes_past_the_edge_and_straight_lines(tab, photo):
    """A stroke goes on outside the photograph and comes back; Shift draws a straight line between two points."""
    page = tab()
    page.open(photo)
    page.stroke((0, 0), (0, -390), (60, -390), (60, 0))
    area = page.area()
    assert area[0].sum() > 10
    page.run("clear")
    page.tab.keyboard.down("Shift")
    page.stroke((-100, 0), (-40, 120), (100, 0))
    page.tab.keyboard.up("Shift")
    rows, _ = np.nonzero(page.area())
    height = np.ptp(rows) + 1
    assert height < 20, "the line runs straight, not through the point between"


def test_painting_while_comparing_and_commands_within_a_stroke(tab, photo):
    """A stroke ends the comparison, which hides the area; a command that changes the area waits for a stroke's end."""
    page = tab()
    page.open(photo)
    page.tab.keyboard.press("c")
    page.tab.locator("#divider").wait_for()
    page.stroke((-60, -40), (-60, 20))
    page.tab.wait_for_selector("#divider", state="hidden")
    area = page.area()
    assert area.any()
    for key in ("p", "ArrowRight", "i"):
        page.tab.keyboard.press(key)
    page.tab.get_by_text("Finish the stroke first").wait_for()
    page.tab.keyboard.press("p")
    page.tab.keyboard.press("Control+z")
    assert (page.area() == area).all()


def test_fingers(tab, photo):
    """One finger paints; a second one takes the stroke back, and both move and zoom the photograph."""
    page = tab(has_touch=True)
    page.open(photo)
    touch = page.tab.context.new_cdp_session(page.tab)
    x, y = page.middle

    def fingers(kind, *offsets):
        points = [{"x": x + dx, "y": y + dy, "id": number} for number, (dx, dy) in enumerate(offsets)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (0, 0))
    fingers("touchMove", (60, 0))
    fingers("touchEnd")
    area = page.area()
    assert area.any()
    scale = page.tab.locator("#zoom-percent").text_content()
    fingers("touchStart", (0, 40))
    fingers("touchMove", (20, 40))
    fingers("touchStart", (20, 40), (60, 40))
    fingers("touchMove", (-40, 40), (120, 40))
    fingers("touchEnd")
    assert (page.area() == area).all()
    assert page.tab.locator("#zoom-percent").text_content() != scale


def test_painting_on_twelve_megapixels(tab, tmp_path, capsys):
    """Reports the time from a pointer event to the painted frame on a photograph of 12 megapixels."""
    noise = np.random.default_rng(2).integers(0, 256, (375, 500, 3), np.uint8)
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), cv2.resize(noise, (4000, 3000), interpolation=cv2.INTER_CUBIC))
    page = tab()
    page.open(path)
    page.tab.evaluate(MEASURE)
    figures = {}
    for zoom in ("fit", "actual-size"):
        page.run(zoom)
        page.tab.evaluate("delays.length = 0")
        page.stroke(*((6 * step - 180, 90 * np.sin(step / 5)) for step in range(60)))
        page.tab.wait_for_timeout(200)
        delays = page.tab.evaluate("delays")
        figures[zoom] = (
            f"median {np.median(delays):.0f} ms, 95 % {np.percentile(delays, 95):.0f} ms, {len(delays)} events"
        )
    assert page.percent > 0
    with capsys.disabled():
        print("\nfrom pointer event to painted frame, 12 megapixels:", figures)


MEASURE = """() => {
  window.delays = [];
  document.getElementById("stage").addEventListener("pointermove", event => requestAnimationFrame(() => {
    const painted = new MessageChannel();  // Its message arrives after the frame.
    painted.port1.onmessage = () => delays.push(performance.now() - event.timeStamp);
    painted.port2.postMessage(0);
  }));
}"""
