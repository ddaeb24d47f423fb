"""Tests of masks: they are exact, have the wanted area, and are the same bytes everywhere."""

import hashlib
import itertools
import math
import os
import pathlib
import subprocess
import sys

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from pconv_jax.data import elements, grown_masks, mask_folder, masks, pipeline
from pconv_jax.errors import UserError

DRAWN = (*elements.ELEMENTS, "mixed")
SIZES = [(16, 16), (64, 48), (48, 200), (128, 128)]
AREAS = [(0.01, 0.6), (0.0, 0.02), (0.3, 0.32), (0.5, 0.6), (0.9, 0.92), (0.97, 1.0)]


def holes(mask):
    return int(np.count_nonzero(mask == 0))


def write(directory, name, image):
    path = pathlib.Path(directory) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return str(path)


def folder_family(directory, **changes):
    """Masks of a folder as they are, of any area."""
    return masks.Family(**{"kind": "folder", "area": (0.0, 1.0), "path": str(directory), "augment": False, **changes})


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("area", AREAS)
def test_masks_are_exact_and_of_the_wanted_area(kind, size, area):
    """Masks are uint8, exactly 0 and 1, with a hole area in (low, high], also for narrow ranges and near-full holes."""
    for index in range(4):
        mask = masks.draw(masks.Family(kind, area), 3, 1, index, size)
        assert mask.dtype == np.uint8 and mask.shape == (*size, 1)
        assert np.isin(mask, (0, 1)).all()
        assert area[0] * mask.size < holes(mask) <= area[1] * mask.size
        assert masks.hole_area(mask) == pytest.approx(holes(mask) / mask.size)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
    st.sampled_from(DRAWN),
    st.tuples(st.integers(16, 90), st.integers(16, 90)),
    st.integers(0, 255),
    st.integers(1, 64),
    st.sampled_from([0.0, 0.04, 0.1]),
    st.integers(0, 2**32),
)
def test_any_range_of_areas_and_border(kind, size, first, width, border, index):
    """The area and the border hold for any range of at least 1/256 that fits beside the border."""
    area = (first / 256, min(1.0, (first + width) / 256))
    rows, columns = (math.ceil(border * side) for side in size)
    room = (size[0] - 2 * rows) * (size[1] - 2 * columns)
    total = size[0] * size[1]
    hypothesis.assume(area[0] * total + 1 <= room and math.floor(area[0] * total) < math.floor(area[1] * total))
    mask = masks.draw(masks.Family(kind, area, border), 0, 0, index, size)
    assert area[0] * total < holes(mask) <= area[1] * total
    assert holes(mask) == holes(mask[rows : size[0] - rows, columns : size[1] - columns])


@pytest.mark.parametrize("kind", DRAWN)
def test_areas_fill_the_range(kind):
    """Areas are spread over the range, not heaped up at one end of it."""
    areas = [masks.hole_area(masks.draw(masks.Family(kind, (0.1, 0.5)), 0, 0, i, (64, 64))) for i in range(100)]
    assert 0.26 < np.mean(areas) < 0.36
    assert min(areas) < 0.16 and max(areas) > 0.44


@pytest.mark.parametrize("kind", DRAWN)
def test_a_hole_is_completed_where_elements_do_not_get_there(kind, monkeypatch):
    """However few elements are drawn, the area is reached, and the border stays free."""
    monkeypatch.setattr(grown_masks, "_MAX_ELEMENTS", 2)
    mask = masks.draw(masks.Family(kind, (0.7, 0.8), border=0.04), 0, 0, 0, (64, 48))
    assert 0.7 * mask.size < holes(mask) <= 0.8 * mask.size
    assert holes(mask) == holes(mask[3:-3, 2:-2])


@pytest.mark.parametrize("kind", DRAWN)
def test_border_is_kept_and_reached(kind):
    """The frame has no hole, and no more than the frame is kept free."""
    family = masks.Family(kind, (0.2, 0.4), border=0.1)
    drawn = np.stack([masks.draw(family, 0, 0, i, (64, 48)) for i in range(20)])[..., 0]
    inside = np.zeros((64, 48), bool)
    inside[7:-7, 5:-5] = True
    assert drawn[:, ~inside].all()
    for edge in (drawn[:, 7], drawn[:, -8], drawn[:, :, 5], drawn[:, :, -6]):
        assert not edge.all()


@pytest.mark.parametrize("kind", DRAWN)
def test_holes_touch_the_border_where_they_may(kind):
    """With border 0 some masks touch each side of the image, and `touches_border` says which."""
    drawn = [masks.draw(masks.Family(kind, (0.2, 0.4)), 0, 0, i, (64, 48)) for i in range(30)]
    for side in ((0,), (-1,), (slice(None), 0), (slice(None), -1)):
        assert any(not mask[side].all() for mask in drawn)
    for mask in drawn:
        framed = np.pad(mask[2:-2, 1:-1], ((2, 2), (1, 1), (0, 0)), constant_values=1)  # 20 of 512 of 64 and of 48
        assert masks.touches_border(mask) == (holes(framed) < holes(mask))


@pytest.mark.parametrize(("size", "frame"), [(512, 20), (256, 10), (64, 2), (52, 2), (51, 1), (26, 1), (8, 1)])
def test_touches_border_sees_a_frame_of_20_of_512(size, frame):
    """A hole on its innermost pixel, on each side, is enough; one just inside is not. At least one pixel wide."""
    for far in (False, True):
        for axis in (0, 1):
            for depth, expected in ((frame - 1, True), (frame, False)):
                mask = np.ones((size, size, 1), np.uint8)
                pixel = [size // 2, size // 2]
                pixel[axis] = size - 1 - depth if far else depth
                mask[tuple(pixel)] = 0
                assert masks.touches_border(mask) == expected, (far, axis, depth)


def test_has_area_rounds_as_draw_does():
    """The range is open below and closed above, in whole pixels: 10 and 20 % of 50 pixels are 5 and 10."""
    for count in range(51):
        mask = np.ones(50, np.uint8)
        mask[:count] = 0
        assert masks.has_area(mask.reshape(5, 10, 1), (0.1, 0.2)) == (5 < count <= 10)
    assert not masks.has_area(np.zeros((2, 2, 1), np.uint8), (0.3, 0.4))  # no number of four pixels


@pytest.mark.parametrize("kind", DRAWN)
def test_a_mask_is_a_function_of_seed_stream_and_index(kind):
    """The same three numbers give the same bytes; changing any one, or swapping two, gives others."""
    family = masks.Family(kind)
    first = masks.draw(family, 1, 2, 3, (64, 64))
    np.testing.assert_array_equal(masks.draw(family, 1, 2, 3, (64, 64)), first)
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 4), (2, 1, 3), (1, 3, 2)):
        assert (masks.draw(family, *other, (64, 64)) != first).any()


def plain_stroke(hole, rng, scale):
    """Draws the stroke of `elements.stroke` with one random number per call."""
    height, width = hole.shape
    side, turns = min(height, width), int(rng.integers(4, 13))
    x, y = rng.uniform(0, 1) * width, rng.uniform(0, 1) * height
    angle = rng.uniform(0, 2 * math.pi)
    bends = [rng.uniform(-1.2, 1.2) for _ in range(turns)]
    lengths = [rng.uniform(0.05, 0.25) * side * scale for _ in range(turns)]
    thickness = max(1, round(rng.uniform(0.03, 0.12) * side * scale))
    walk = [(x, y)]
    for bend, length in zip(bends, lengths, strict=True):
        angle += bend
        x, y = x + math.cos(angle) * length, y + math.sin(angle) * length
        walk.append((x, y))

    def reflect(at, end):
        at = abs((at + end) % (2 * end) - end)
        return min(round(at), end - 1)

    points = [(reflect(x, width), reflect(y, height)) for x, y in walk]
    for a, b in itertools.pairwise(points):
        cv2.line(hole, a, b, 1, thickness)
    for point in points:
        cv2.circle(hole, point, thickness // 2, 1, -1)


def plain_shape(hole, rng, scale):
    """Draws the shape of `elements.shape` with one random number per call."""
    height, width = hole.shape
    side = min(height, width)
    kind, x1, y1, x2, y2, angle = (int(rng.integers(0, n)) for n in (3, width, height, width, height, 180))
    small, large, third = (rng.uniform(0.03, 0.1) * side * scale for _ in range(3))
    thickness = max(1, round(small))
    if kind == 0:
        cv2.line(hole, (x1, y1), (int(x1 + (x2 - x1) * scale), int(y1 + (y2 - y1) * scale)), 1, thickness)
    elif kind == 1:
        cv2.circle(hole, (x1, y1), round(large), 1, -1)
    else:
        cv2.ellipse(hole, (x1, y1), (round(2 * large), round(third)), angle, 0, 360, 1, thickness)


@pytest.mark.parametrize(("kind", "plain"), [("strokes", plain_stroke), ("shapes", plain_shape)])
@pytest.mark.parametrize("size", [(64, 64), (48, 200)])
def test_elements_are_what_one_number_at_a_time_draws(kind, plain, size):
    """Drawing numbers at once, and computing with arrays, changes no mask."""
    for index in range(100):
        one, other = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        scale = 0.5 ** (index % 4)
        rngs = [np.random.default_rng(index) for _ in range(2)]
        elements.ELEMENTS[kind](one, rngs[0], scale)
        plain(other, rngs[1], scale)
        np.testing.assert_array_equal(one, other, err_msg=str(index))
        assert one.any() and rngs[0].random() == rngs[1].random()


FINGERPRINT = """
import hashlib
from pconv_jax.data import elements, masks
sha = hashlib.sha256()
for kind in (*elements.ELEMENTS, "mixed"):
    for index in range(5):
        sha.update(masks.draw(masks.Family(kind), 7, 1, index, (64, 48)).tobytes())
print(sha.hexdigest())
"""


def test_another_process_draws_the_same_bytes():
    """Nothing depends on a process: LaMa seeded masks from Python's salted hash()."""
    sha = hashlib.sha256()
    for kind in DRAWN:
        for index in range(5):
            sha.update(masks.draw(masks.Family(kind), 7, 1, index, (64, 48)).tobytes())
    for salt in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": salt}
        root = pathlib.Path(__file__).parents[1]
        done = subprocess.run(
            [sys.executable, "-c", FINGERPRINT], env=environment, cwd=root, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == sha.hexdigest()


@pytest.mark.parametrize("polarity", masks.POLARITIES)
def test_polarity(tmp_path, polarity):
    """The left third of the file is white: a hole as "white_hole", valid as "black_hole"."""
    image = np.zeros((30, 30), np.uint8)
    image[:, :10] = 255
    write(tmp_path, "mask.png", image)
    mask = masks.draw(folder_family(tmp_path, polarity=polarity), 0, 0, 0, (30, 30))[..., 0]
    hole_columns = slice(0, 10) if polarity == "white_hole" else slice(10, 30)
    assert holes(mask) == holes(mask[:, hole_columns]) == mask[:, hole_columns].size


@pytest.mark.parametrize("polarity", masks.POLARITIES)
def test_grey_is_binarised_at_half(tmp_path, polarity):
    """Every grey level becomes exactly 0 or 1; 127 of 255 is still black (naoto0804 kept greys as partly valid)."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = write(tmp_path, "ramp.png", ramp)
    hole = mask_folder.read_hole(path, polarity)
    np.testing.assert_array_equal(hole, (ramp >= 128) == (polarity == "white_hole"))
    mask = masks.draw(folder_family(tmp_path, polarity=polarity), 0, 0, 0, (16, 16))
    np.testing.assert_array_equal(mask[..., 0], 1 - hole)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (40, 72), (200, 150)])
def test_jpeg_masks_are_exact(tmp_path, augment, size):
    """Blurred edges and JPEG's ringing stay exactly 0 and 1 when masks are resized, dilated and rotated."""
    image = np.zeros((96, 96), np.uint8)
    cv2.circle(image, (40, 50), 20, 255, -1)
    write(tmp_path, "mask.jpg", cv2.GaussianBlur(image, (9, 9), 3))
    assert len(np.unique(cv2.imread(str(tmp_path / "mask.jpg"), cv2.IMREAD_GRAYSCALE))) > 50
    for index in range(10):
        mask = masks.draw(folder_family(tmp_path, augment=augment), 0, 0, index, size)
        assert mask.dtype == np.uint8 and mask.shape == (*size, 1)
        assert set(np.unique(mask)) == {0, 1}


def test_unaugmented_resize_is_nearest(tmp_path):
    """Doubling repeats each pixel, halving takes every second: no pixel is averaged."""
    hole = np.random.default_rng(0).integers(0, 2, (32, 48), np.uint8)
    write(tmp_path, "mask.png", 255 * hole)
    doubled = masks.draw(folder_family(tmp_path), 0, 0, 0, (64, 96))[..., 0]
    np.testing.assert_array_equal(doubled, 1 - hole.repeat(2, axis=0).repeat(2, axis=1))
    halved = masks.draw(folder_family(tmp_path), 0, 0, 0, (16, 24))[..., 0]
    np.testing.assert_array_equal(halved, 1 - hole[::2, ::2])
    same = masks.draw(folder_family(tmp_path), 0, 0, 0, (32, 48))[..., 0]
    np.testing.assert_array_equal(same, 1 - hole)


def test_augmentation_dilates_and_varies(tmp_path):
    """One mask file gives many masks, mostly with larger holes, that keep the area and the border.

    The same index gives the same mask.
    """
    image = np.zeros((128, 128), np.uint8)
    cv2.circle(image, (64, 64), 24, 255, -1)
    write(tmp_path, "mask.png", image)
    before = np.mean(image == 255)
    family = folder_family(tmp_path, augment=True)
    drawn = [masks.draw(family, 0, 0, i, (128, 128)) for i in range(20)]
    assert len({mask.tobytes() for mask in drawn}) == 20
    assert np.median([masks.hole_area(mask) for mask in drawn]) > before
    np.testing.assert_array_equal(masks.draw(family, 0, 0, 7, (128, 128)), drawn[7])
    cv2.circle(image, (64, 64), 100, 255, -1)  # up to every border
    write(tmp_path, "mask.png", image)
    family = folder_family(tmp_path, augment=True, area=(0.3, 0.8), border=0.05)
    for index in range(10):
        mask = masks.draw(family, 0, 0, index, (60, 60))[..., 0]
        assert 0.3 < masks.hole_area(mask) <= 0.8
        assert holes(mask) == holes(mask[3:-3, 3:-3])


def test_unaugmented_masks_are_chosen_by_area_and_border(tmp_path):
    """Of several files only those are drawn that fit the area and leave the frame free, unchanged."""
    for name, at in {"small.png": (30, 34), "large.png": (8, 56), "edge.png": (0, 40)}.items():
        image = np.zeros((64, 64), np.uint8)
        image[slice(*at), slice(*at)] = 255
        write(tmp_path, name, image)
    family = folder_family(tmp_path, area=(0.3, 0.7), border=0.05)
    for index in range(10):
        mask = masks.draw(family, 0, 0, index, (64, 64))
        assert holes(mask) == 48 * 48


def test_folder_is_searched_at_any_depth_without_hidden_files(tmp_path):
    """Files are listed sorted, nested folders included; names that begin with a dot (macOS) are left out."""
    for name in ("b.png", "a/z.PNG", "a/c.bmp"):
        path = write(tmp_path, name.lower(), np.zeros((4, 4), np.uint8))
        os.rename(path, tmp_path / name)
    (tmp_path / "._b.png").write_bytes(b"AppleDouble")
    (tmp_path / "notes.txt").write_text("not a mask")
    names = [os.path.relpath(path, tmp_path) for path in mask_folder.files(str(tmp_path))]
    assert names == sorted(["b.png", "a/z.PNG", "a/c.bmp"])


def test_folder_errors(tmp_path):
    """An empty folder, nothing readable and an area that no file has are errors that say what to do."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"no mask images \(\.jpg, .*\) under .*empty: set the path of the mask folder"
    ):
        masks.draw(folder_family(tmp_path / "empty"), 0, 0, 0, (16, 16))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "mask.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"of 10000 masks of .*broken 10000 cannot be read, .*: check the files"):
        masks.draw(folder_family(tmp_path / "broken"), 0, 0, 0, (16, 16))
    image = np.zeros((16, 16), np.uint8)
    image[:4] = 255
    write(tmp_path / "quarter", "mask.png", image)
    message = r"have hole areas of 0.250 to 0.250, none fits \(0.5, 0.6\).*check the polarity \(white_hole\) or widen"
    with pytest.raises(ValueError, match=message):
        masks.draw(folder_family(tmp_path / "quarter", area=(0.5, 0.6)), 0, 0, 0, (16, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "circles"}, 'masks are "circles"; needs one of shapes, strokes, boxes, scratches'),
        ({"polarity": "white"}, 'mask polarity is "white"; needs one of white_hole, black_hole'),
        ({"area": (0.4, 0.2)}, r"hole area is \(0.4, 0.2\); needs 0 <= low < high <= 1"),
        ({"area": (0.4, 0.4)}, "needs 0 <= low < high <= 1"),
        ({"area": (-0.1, 0.4)}, "needs 0 <= low < high <= 1"),
        ({"area": (0.1, 10)}, "needs 0 <= low < high <= 1"),
        ({"area": (0.1, math.nan)}, "needs 0 <= low < high <= 1"),
        ({"border": 0.5}, r"mask border is 0.5; needs a fraction of the side in \[0, 0.5\)"),
        ({"border": 20}, "mask border is 20; needs a fraction of the side"),
        ({"border": 0.2, "area": (0.5, 0.6)}, r"border of 0.2; at most 0.360 of the image is left: lower"),
        ({"kind": "folder"}, 'masks are "folder"; needs the path of a directory of mask images'),
    ],
)
def test_wrong_families_are_named(arguments, message):
    """The error names the wrong value and the wanted one."""
    with pytest.raises(ValueError, match=message):
        masks.Family(**arguments)


@pytest.mark.parametrize("kind", DRAWN)
def test_an_area_without_pixels_is_an_error(kind):
    """At 16 x 16 a pixel is 0.4 %: no mask lies in a range between two of them."""
    with pytest.raises(ValueError, match=r"no mask of 16x16 has a hole area in \(0.5, 0.501\): widen the range"):
        masks.draw(masks.Family(kind, (0.5, 0.501)), 0, 0, 0, (16, 16))
    with pytest.raises(ValueError, match=r"a border of 0.13 leaves no hole of \d+ pixels at 16x16"):
        masks.draw(masks.Family(kind, (0.5, 0.6), border=0.13), 0, 0, 0, (16, 16))


def test_nvidia_masks_are_white_holes(shared_data):
    """File number // 2000 is the hole-area bucket, and the first 1000 of each bucket keep 20 pixels of border free.

    Both hold only if white is the hole.
    """
    files = sorted(shared_data("nvidia_masks").glob("*.png"))
    assert files
    for path in files:
        hole = mask_folder.read_hole(str(path), "white_hole")
        low, high = pipeline.BUCKETS[int(path.stem) // 2000]
        assert hole.shape == (512, 512) and low < hole.mean() <= high, path.name
        if int(path.stem) % 2000 < 1000:
            assert hole.sum() == hole[20:-20, 20:-20].sum(), path.name


def test_nvidia_masks_are_drawn_by_bucket(shared_data):
    """The folder family finds masks of each bucket at another size, off the border where that is wanted."""
    directory = shared_data("nvidia_masks")
    for bucket, area in enumerate(pipeline.BUCKETS):
        mask = masks.draw(folder_family(directory, area=area, border=0.03), 0, 0, bucket, (256, 256))[..., 0]
        assert area[0] < masks.hole_area(mask) <= area[1]
        assert mask[:8].all() and mask[:, -8:].all()


@pytest.mark.parametrize("size", [512, 256, 64, 26])
def test_nvidia_masks_touch_the_border_as_their_numbers_say(shared_data, size):
    """The first 1000 masks of each bucket never touch the border and most others do, at any size from 26 pixels."""
    directory = shared_data("nvidia_masks")
    touching = {}
    for path in sorted(directory.glob("*.png")):
        hole = cv2.resize(mask_folder.read_hole(str(path), "white_hole"), (size, size), interpolation=cv2.INTER_NEAREST)
        half = int(path.stem) % 2000 >= 1000
        touching.setdefault(half, []).append(masks.touches_border(1 - hole[..., None]))
    assert not any(touching[False]) and np.mean(touching[True]) > 0.8


def test_masks_of_a_folder_have_names(tmp_path):
    """Names are relative to the folder at any depth; drawn masks have none; the mask equals that of `draw`."""
    rng = np.random.default_rng(0)
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        write(tmp_path, name, 255 * rng.integers(0, 2, (32, 48), np.uint8))
    family, seen = folder_family(tmp_path), set()
    for index in range(9):
        mask, name = masks.draw_named(family, 0, 0, index, (32, 48))
        np.testing.assert_array_equal(mask, masks.draw(family, 0, 0, index, (32, 48)))
        hole = mask_folder.read_hole(str(tmp_path / name), family.polarity)
        np.testing.assert_array_equal(mask[..., 0], 1 - hole)
        seen.add(name)
    assert seen == {"a.png", "sub/b.png"}
    assert masks.draw_named(masks.Family(), 0, 0, 0, (16, 16))[1] == ""


def test_masks_of_the_keras_notebook():
    """At 512 x 512 they cover a quarter to a third of the image as they come, and keep to a range if there is one."""
    family = masks.Family("notebook", (0.0, 1.0))
    areas = [masks.hole_area(masks.draw(family, 0, 0, index, (512, 512))) for index in range(40)]
    assert 0.25 < np.mean(areas) < 0.33 and min(areas) < 0.2 and max(areas) > 0.4
    mask = masks.draw(masks.Family("notebook", (0.1, 0.2), border=0.04), 0, 0, 0, (512, 512))
    assert 0.1 < masks.hole_area(mask) <= 0.2 and not masks.touches_border(mask)
    with pytest.raises(UserError, match=r"none of 1000 masks of the kind notebook has .* hole pixels at 64x64: widen"):
        masks.draw(masks.Family("notebook", (0.0, 0.001)), 0, 0, 0, (64, 64))
