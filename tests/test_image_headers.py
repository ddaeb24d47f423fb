"""The size that is read from a header equals the size that decoders give, for headers of every kind of writer."""

import io
import struct

import cv2
import numpy as np
import PIL.Image
import pytest

import pictures
from pconv_jax import errors
from pconv_jax.reading import images

KINDS = {
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "jpeg with restarts, profile and exif": (
        "JPEG",
        {"restart_marker_rows": 1, "icc_profile": b"\xff\xd9" * 40_000, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"},
    ),
    "png": ("PNG", {}),
    "lossy webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "extended webp": ("WEBP", {"icc_profile": b"profile"}),
    "bmp": ("BMP", {}),
}


def save(kind, width, height, mode="RGB"):
    file = io.BytesIO()
    name, options = KINDS[kind]
    PIL.Image.fromarray(pictures.noise(0, height, width)).convert(mode).save(file, name, **options)
    return file.getvalue()


def size(content):
    head = images.header(content)
    return head.width, head.height


def decoded(content):
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else image.shape[1::-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (61, 45), (257, 259)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_sizes(kind, shape, mode):
    """Width and height, in this order, are right for each format and each of its headers."""
    content = save(kind, *shape, mode)
    assert size(content) == shape == decoded(content)


def test_bmp_of_another_system():
    """OS/2's short header is read, and a negative height, which means that the first row is on top."""
    pixels = bytes(8 * 2)
    short = b"BM" + struct.pack("<IHHI", 26 + 16, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 2, 1, 24) + pixels
    assert size(short) == (2, 2) == decoded(short)
    top = bytearray(save("bmp", 5, 7))
    top[22:26] = struct.pack("<i", -7)
    assert size(bytes(top)) == (5, 7) == decoded(bytes(top))


def test_stray_bytes_between_markers():
    """Stray and fill bytes are skipped, as by libjpeg, and a thumbnail's frame inside a segment is not the frame."""
    content, thumbnail = save("jpeg", 61, 45), save("jpeg", 9, 8)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    at = 4 + int.from_bytes(content[4:6], "big")  # Behind the first segment.
    for stray in (b"\0\1\2", b"\xff\xff\xff", b"\xff\0abc", segment):
        assert size(content[:at] + stray + content[at:]) == (61, 45)
        assert decoded(content[:at] + stray + content[at:]) == (61, 45)


@pytest.mark.parametrize("kind", KINDS)
def test_no_decoder_sees_a_size_that_was_not_checked(kind, capfd):
    """A changed header is refused, or gives the size that OpenCV decodes, or cannot be decoded.

    A PNG has checksums, and never decodes after a change.
    """
    rng, content, agreed, refused = np.random.default_rng(0), save(kind, 61, 45), 0, 0
    for _ in range(200):
        changed = bytearray(content)
        for at in rng.integers(0, min(len(content), 700), rng.integers(1, 4)):
            changed[at] = rng.integers(0, 256) if rng.random() < 0.7 else 0xFF
        try:
            width, height = size(bytes(changed))
        except errors.UserError:
            refused += 1
            continue
        if width * height < 200_000:
            shape = decoded(bytes(changed))
            assert shape in (None, (width, height))
            agreed += shape is not None
    assert refused > 0 and (agreed > 0 or kind == "png")
    capfd.readouterr()  # Messages of the decoders.


def test_a_second_header():
    """The first of two headers in a PNG or JPEG is the one that is checked; no decoder obeys the second."""
    large = save("png", 500, 400)
    content = save("png", 61, 45)
    for at in (33, len(content) - 12):
        twice = content[:at] + large[8:33] + content[at:]
        assert size(twice) == (61, 45) and decoded(twice) in (None, (61, 45))
    content, large = (save("jpeg", *shape) for shape in ((61, 45), (500, 400)))
    first, second = (text.index(b"\xff\xc0") for text in (content, large))
    twice = content[: first + 19] + large[second : second + 19] + content[first + 19 :]
    assert size(twice) == (61, 45) and decoded(twice) in (None, (61, 45))


def test_the_end_of_a_jpeg():
    """A JPEG without its end is refused; anything may follow the end."""
    content = save("jpeg", 61, 45)
    for good in (content, content + bytes(500), content + b"a gain map" * 9):
        images.header(good, 61 * 45)
    for bad in (content[:-2], content[:-300] + bytes(300)):
        with pytest.raises(ValueError, match="is a JPEG without its end"):
            images.header(bad, 61 * 45)


def test_the_limit():
    """The limit is on the product of both sides, inclusive."""
    content = save("png", 61, 45)
    images.header(content, 2745)
    with pytest.raises(ValueError, match=r"is 61x45, more than 2744 pixels: raise max_pixels if it is meant to be"):
        images.header(content, 2744)
