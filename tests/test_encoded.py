"""The size in a header is the size that decoders make of it, whoever wrote the file."""

import errno
import io
import os
import re
import struct

import cv2
import numpy as np
import PIL.Image
import pytest

import pictures
from pconv_jax.data import encoded, masks, sources

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


def decoded(content):
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else image.shape[1::-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (61, 45), (257, 259)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_sizes(kind, size, mode):
    """Width and height, not the reverse, of each format and of each of its headers."""
    content = save(kind, *size, mode)
    assert encoded.size(content) == size == decoded(content)


def test_bmp_of_another_system():
    """OS/2's short header; rows from the top, where the height is negative."""
    pixels = bytes(8 * 2)
    short = b"BM" + struct.pack("<IHHI", 26 + 16, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 2, 1, 24) + pixels
    assert encoded.size(short) == (2, 2) == decoded(short)
    top = bytearray(save("bmp", 5, 7))
    top[22:26] = struct.pack("<i", -7)
    assert encoded.size(bytes(top)) == (5, 7) == decoded(bytes(top))


def test_stray_bytes_between_markers():
    """libjpeg passes over them, and over fill bytes, with a warning; a thumbnail's frame lies inside a segment."""
    content, thumbnail = save("jpeg", 61, 45), save("jpeg", 9, 8)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    at = 4 + int.from_bytes(content[4:6], "big")  # behind the first segment
    for stray in (b"\0\1\2", b"\xff\xff\xff", b"\xff\0abc", segment):
        assert encoded.size(content[:at] + stray + content[at:]) == (61, 45)
        assert decoded(content[:at] + stray + content[at:]) == (61, 45)


@pytest.mark.parametrize("kind", KINDS)
def test_no_decoder_sees_a_size_that_was_not_checked(kind, capfd):
    """Whatever is done to a header: refused here, or of the size that OpenCV makes of it, or not decodable.

    A PNG has checksums, and never decodes after that.
    """
    rng, content, agreed, refused = np.random.default_rng(0), save(kind, 61, 45), 0, 0
    for _ in range(200):
        changed = bytearray(content)
        for at in rng.integers(0, min(len(content), 700), rng.integers(1, 4)):
            changed[at] = rng.integers(0, 256) if rng.random() < 0.7 else 0xFF
        try:
            size = encoded.size(bytes(changed))
        except ValueError:
            refused += 1
            continue
        if size[0] * size[1] < 200_000:
            found = decoded(bytes(changed))
            assert found in (None, size)
            agreed += found is not None
    assert refused > 0 and (agreed > 0 or kind == "png")
    capfd.readouterr()  # what decoders say of it


def test_a_second_header():
    """Of a PNG or a JPEG with two, the first is what was checked, and no decoder follows the second."""
    large = save("png", 500, 400)
    content = save("png", 61, 45)
    for at in (33, len(content) - 12):
        twice = content[:at] + large[8:33] + content[at:]
        assert encoded.size(twice) == (61, 45) and decoded(twice) in (None, (61, 45))
    content, large = (save("jpeg", *size) for size in ((61, 45), (500, 400)))
    first, second = (text.index(b"\xff\xc0") for text in (content, large))
    twice = content[: first + 19] + large[second : second + 19] + content[first + 19 :]
    assert encoded.size(twice) == (61, 45) and decoded(twice) in (None, (61, 45))


def test_the_end_of_a_jpeg():
    """What follows it does not matter, its absence does."""
    content = save("jpeg", 61, 45)
    for good in (content, content + bytes(500), content + b"a gain map" * 9):
        encoded.check(good, 61 * 45)
    for bad in (content[:-2], content[:-300] + bytes(300)):
        with pytest.raises(ValueError, match="is a JPEG without its end"):
            encoded.check(bad, 61 * 45)


def test_the_limit():
    """Holds for the product of both sides, inclusive."""
    content = save("png", 61, 45)
    encoded.check(content, 2745)
    with pytest.raises(ValueError, match=r"is 61x45; needs at most 2744 pixels \(data.max_pixels\)"):
        encoded.check(content, 2744)


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """A file of which reading fails `times` times with an error of the system, and the pauses that are made."""
    pauses, path = [], tmp_path / "photo.png"
    path.write_bytes(b"content")
    monkeypatch.setattr(encoded.time, "sleep", pauses.append)

    def fail(number, times):
        left = [OSError(number, os.strerror(number), str(path))] * times

        def opened(*arguments, **options):
            if left:
                raise left.pop()
            return open(*arguments, **options)

        monkeypatch.setattr(encoded, "open", opened, raising=False)
        return str(path), pauses

    return fail


PASSING = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENOMEM]


@pytest.mark.parametrize("number", PASSING)
def test_a_read_error_that_passes_is_tried_again(failing, caplog, number):
    """A disk or a network that is back 1 or 11 seconds later: the file itself, and the log says so."""
    path, pauses = failing(number, 2)
    assert encoded.read(path) == b"content"
    assert pauses == [1, 10] and len(caplog.records) == 2
    assert f"{os.strerror(number)}; tried again in 10 s" in caplog.text


@pytest.mark.parametrize("number", PASSING)
def test_a_read_error_that_stays_is_no_damaged_file(failing, tmp_path, number):
    """Neither an image nor a mask takes the place of one that cannot be read at the moment: the run stops."""
    path, pauses = failing(number, 99)
    with pytest.raises(
        encoded.Unreachable, match="three times: mend or restore it, and the same command goes on"
    ) as told:
        encoded.read(path)
    assert told.value.errno == number and told.value.filename == path and pauses == [1, 10]
    with pytest.raises(encoded.Unreachable):
        sources.DecodedSource(sources.FileSource(str(tmp_path), ("photo.png", "other.png")))[0]
    with pytest.raises(encoded.Unreachable):
        masks.draw(masks.Family("folder", (0.1, 0.9), path=str(tmp_path)), 0, 0, 0, (16, 16))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG])
def test_what_is_said_of_the_file_is_not_tried_again(failing, number):
    path, pauses = failing(number, 1)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as told:
        encoded.read(path)
    assert not isinstance(told.value, encoded.Unreachable) and not pauses
