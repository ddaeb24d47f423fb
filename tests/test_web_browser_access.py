"""Tests in a real browser that the page is usable by keyboard alone, with contrast, and in a narrow window."""

import contextlib

import pytest

pytest_plugins = ["browser_fixtures"]
pytestmark = pytest.mark.browser

# The name of the focused element, "" if it has none or its focus is not visible, None if it is the page.
FOCUSED = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  const name = e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent.trim();
  return getComputedStyle(e).outlineStyle === "none" ? "" : name;
}"""
OPERABLE = """() => [...document.querySelectorAll("button, input, select")].filter(
  e => !e.disabled && e.checkVisibility({visibilityProperty: true})).length"""

# Texts whose contrast by WCAG is below 4.5, with their contrast. Disabled controls are exempt.
LOW_CONTRAST = """() => {
  const rgba = text => {
    const c = new OffscreenCanvas(1, 1).getContext("2d");
    c.fillStyle = text; c.fillRect(0, 0, 1, 1);
    const d = c.getImageData(0, 0, 1, 1).data;
    return [d[0], d[1], d[2], d[3] / 255];
  };
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const background = e => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c[3] > 0.8) return c;
    }
    return [255, 255, 255, 1];
  };
  return [...document.body.querySelectorAll("*")].flatMap(e => {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest(":disabled, noscript, script, option, .unseen") || !e.checkVisibility()) return [];
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(background(e))].sort((p, q) => q - p);
    const ratio = (a + 0.05) / (b + 0.05);
    return ratio < 4.5 ? [[e.textContent.trim(), ratio]] : [];
  });
}"""

# Visible controls that the window cuts off.
OUTSIDE = """() => [...document.querySelectorAll("button, input, select")]
  .filter(e => e.checkVisibility() && !e.closest("#strip-list"))
  .filter(e => {
    const box = e.getBoundingClientRect();
    return box.left < 0 || box.right > innerWidth || box.bottom > innerHeight;
  })
  .map(e => e.title || e.id)"""


def tab_to(page, reached, name):
    """Presses Tab until the focused element is the wanted one."""
    for _ in range(60):
        if page.tab.evaluate(f"(() => {{ const element = document.activeElement; return {reached}; }})()"):
            return
        page.tab.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {name}")


def choose_by_enter(page):
    """Presses Enter until the dialog opens; chromium without a window now and then misses the first press."""
    from playwright import sync_api

    for _ in range(5):
        with contextlib.suppress(sync_api.TimeoutError):
            with page.tab.expect_file_chooser(timeout=8_000) as chooser:
                page.tab.keyboard.press("Enter")
            return chooser.value
    raise AssertionError("Enter does not open the dialog")


def test_by_keyboard_alone(tab, photo):
    """Without a pointer, a person opens, paints, fills, undoes, saves, and reaches every button by Tab."""
    page = tab()
    page.tab.keyboard.press("Tab")
    tab_to(
        page, "element.tagName === 'BUTTON' && element.textContent.includes('Choose')", "the button that opens files"
    )
    choose_by_enter(page).set_files(photo)
    page.tab.wait_for_selector("#zoom", state="visible")
    tab_to(page, "element.id === 'stage'", "the stage")
    page.tab.keyboard.press("p")
    for _ in range(5):
        page.tab.keyboard.press("ArrowRight")
    page.tab.keyboard.press("p")
    assert page.percent > 0
    page.fill()
    page.tab.keyboard.press("Control+z")
    assert page.percent > 0
    with page.tab.expect_download():
        page.tab.keyboard.press("Control+s")
    reached = set()
    for _ in range(60):
        page.tab.keyboard.press("Tab")
        page.tab.wait_for_timeout(20)
        reached.add(page.tab.evaluate(FOCUSED))
    enabled = page.tab.evaluate(OPERABLE)
    assert enabled <= len(reached - {None}) and "" not in reached, reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_text_has_contrast_and_fits(tab, photo, scheme, width):
    """All visible text has a contrast of 4.5 to its background, and nothing is wider than the window."""
    page = tab(color_scheme=scheme, viewport={"width": width, "height": 800})
    for state in ("empty", "open", "area-more", "settings-more", "save-more", "keys"):
        if state == "open":
            page.open(photo)
        elif state == "keys":
            page.run("keys")
        elif state != "empty":
            page.tab.click(f"#{state}")
        page.settle()
        assert page.tab.evaluate(LOW_CONTRAST) == [], (state, scheme)
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
        if state.endswith("more"):
            page.tab.keyboard.press("Escape")
    page.tab.keyboard.press("Escape")
    assert page.tab.evaluate(OUTSIDE) == []
