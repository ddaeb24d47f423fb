"""Files of every kind come out as the right pixels, upright, or as an error that names the kind."""

import io
import struct

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

import bad_files
import file_cases
import fuzz_reading
import pictures
from pconv_jax import errors
from pconv_jax.data import sources
from pconv_jax.reading import exif, images, jpeg, png

UPRIGHT, UPRIGHT_16 = bad_files.pixels("upright.png"), bad_files.pixels("upright16.png")
GREY_16 = UPRIGHT_16[..., 1:2]


def pillow(array, kind, **options):
    """Returns the bytes of a file by Pillow."""
    file = io.BytesIO()
    PIL.Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(file, kind, **options)
    return file.getvalue()


def as_stored(array, orientation):
    """Returns the pixels that a camera stores so that `orientation` makes them upright again."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return np.ascontiguousarray(images.upright(array, inverse))


def with_orientation(array, kind, orientation):
    """Returns the bytes of a file of a kind that holds `array` stored by an orientation."""
    stored = as_stored(array, orientation)
    block = exif.PREFIX + struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, exif.ORIENTATION, 3, 1, orientation, 0, 0)
    flat = stored[..., 0] if stored.shape[-1] == 1 else stored
    if kind == "png":
        return png.with_chunks(imagecodecs.png_encode(flat), [(b"eXIf", block.removeprefix(exif.PREFIX))])
    if kind == "tiff":
        return file_cases.tiff(
            flat, photometric="rgb" if flat.ndim == 3 else "minisblack", extratags=[(274, 3, 1, orientation)]
        )
    options = {"quality": 100, "subsampling": 0} if kind == "jpeg" else {"lossless": True}
    return pillow(stored, kind.upper(), exif=block, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("jpeg", np.uint8),
        ("webp", np.uint8),
        ("png", np.uint8),
        ("png", np.uint16),
        ("tiff", np.uint8),
        ("tiff", np.uint16),
    ],
)
def test_orientation_is_applied_once(kind, dtype, channels, orientation):
    """Every format, depth and colour gives the upright pixels for all eight orientations, for training as well."""
    upright = (UPRIGHT if dtype == np.uint8 else UPRIGHT_16)[..., 3 - channels :]
    encoded = with_orientation(upright, kind, orientation)
    image = images.decode(encoded)
    assert image.orientation == orientation and image.pixels.dtype == dtype
    wanted = upright if kind != "webp" else np.broadcast_to(upright, (*upright.shape[:2], 3))
    difference = np.abs(image.pixels.astype(int) - wanted)
    assert difference.max() <= (3 if kind == "jpeg" else 0)
    np.testing.assert_array_equal(sources.decode(encoded), images.to_8_bits(image, 3))


def test_an_orientation_in_xmp_alone_is_ignored():
    """Training and filling obey EXIF's orientation and no other, as web browsers do."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    encoded = png.with_chunks(bad_files.encoded("upright.png"), [png.xmp_chunk(xmp)])
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        assert image.getexif().get(274) == 6  # Pillow obeys it.
    np.testing.assert_array_equal(images.decode(encoded).pixels, UPRIGHT)
    np.testing.assert_array_equal(sources.decode(encoded), UPRIGHT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "I")])
def test_the_orientation_may_have_any_integer_type(order, kind, code):
    """Some programs write the orientation as a byte or as 32 bits, in either byte order; other numbers are ignored."""
    for number, wanted in ((6, 6), (0, 1), (9, 1)):
        entry = exif.Entry(kind, 1, struct.pack(order + code, number))
        assert exif.orientation(exif.serialise(order, {"main": {exif.ORIENTATION: entry}})) == wanted
    assert exif.orientation(exif.serialise("<", {"main": {exif.ORIENTATION: exif.Entry(2, 2, b"6\0")}})) == 1


def test_orientation_in_imagemagicks_text():
    """ImageMagick's older PNGs have their EXIF block as hexadecimal text."""
    block = exif.PREFIX + struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, exif.ORIENTATION, 3, 1, 3, 0, 0)
    text = b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
    encoded = png.with_chunks(imagecodecs.png_encode(as_stored(UPRIGHT, 3)), [(b"tEXt", text)])
    np.testing.assert_array_equal(images.decode(encoded).pixels, UPRIGHT)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_grey_of_a_png(depth):
    """tRNS of a grey PNG makes one grey level transparent, at every depth."""
    top = 2**depth - 1
    levels = np.arange(32 * 48).reshape(32, 48) % (top + 1)
    rows = b"".join(b"\0" + packed(row, depth) for row in levels)
    encoded = pictures.png(48, 32, depth, 0, rows, (b"tRNS", struct.pack(">H", top // 3)))
    image = images.decode(encoded)
    np.testing.assert_array_equal(image.alpha[..., 0] == 0, levels == top // 3)
    np.testing.assert_array_equal(image.pixels[..., 0], levels * (image.white // top if depth < 16 else 1))


def packed(row, depth):
    """Returns a row of samples as the bytes of a PNG."""
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.ravel().astype(np.uint8)).tobytes()


def test_transparent_grey_of_16_bits():
    """The file that OpenCV could not read as grey with transparency: pixels of the key are transparent."""
    image = images.decode(bad_files.encoded("f02_grey16_trns.png"))
    assert image.pixels.dtype == np.uint16 and image.pixels.shape == (32, 48, 1)
    assert 0 < np.count_nonzero(image.alpha == 0) < image.alpha.size


def test_long_texts_and_profiles_do_not_matter():
    """Texts and profiles of any length are no damage."""
    np.testing.assert_array_equal(bad_files.pixels("f06_long_text.png"), UPRIGHT)
    profile = bytes(3_000_000)
    encoded = png.with_chunks(
        bad_files.encoded("upright.png"), [png.profile_chunk(profile), (b"tEXt", b"a\0" + profile)]
    )
    np.testing.assert_array_equal(images.decode(encoded).pixels, UPRIGHT)
    assert images.blocks(encoded).icc == profile


def named_kinds():
    """Yields `(bytes, message)` of files of kinds that are not read."""
    image = PIL.Image.fromarray(UPRIGHT)
    for kind, options, name in (
        ("GIF", {}, "is a GIF"),
        ("AVIF", {}, "is an AVIF"),
        ("JPEG2000", {}, "is a JPEG 2000"),
        ("PPM", {}, r"is a PNM \(PBM, PGM, PPM, PAM or PFM\)"),
        ("PDF", {}, "is a PDF"),
        ("ICO", {"sizes": [(16, 16)]}, "is an icon"),
    ):
        file = io.BytesIO()
        image.save(file, kind, **options)
        yield file.getvalue(), f"{name}; needs JPEG, PNG, WebP, TIFF or BMP: convert it first"
    yield b"\0\0\0\x18ftypheic" + bytes(99), "is a HEIC; needs JPEG"
    yield b"<!DOCTYPE html><html>", "is a web page"
    yield b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"
    yield b"", "is empty"
    yield bytes(500), "is not an image of a known format; needs"
    yield (
        file_cases.tiff(UPRIGHT.astype(np.float32), photometric="rgb"),
        "is 32 bits floating point; needs 8 or 16 bits unsigned",
    )
    yield file_cases.tiff(UPRIGHT.astype(np.int16), photometric="rgb"), "is 16 bits signed"
    yield file_cases.tiff(UPRIGHT.astype(np.uint32), photometric="rgb"), "is 32 bits per channel; needs 8 or 16"
    yield file_cases.tiff(np.dstack([UPRIGHT, UPRIGHT[..., 0]]), photometric="separated"), "is CMYK; needs grey or RGB"
    yield file_cases.tiff(UPRIGHT, photometric="cielab"), "is LAB; needs grey or RGB"
    yield file_cases.tiff(np.stack([UPRIGHT] * 2), photometric="rgb"), "has 2 frames; needs one"
    yield bad_files.encoded("f02_grey12.tif"), "is 12 bits per channel; needs 8 or 16: convert it first"
    yield pillow(np.dstack([UPRIGHT, UPRIGHT[..., 0]])[..., :3], "JPEG")[:-2], "is a JPEG without its end"
    file = io.BytesIO()
    image.convert("CMYK").save(file, "JPEG")
    yield file.getvalue(), "is CMYK; needs grey or RGB: convert it first"
    fields = struct.pack("<IiiHHIIiiII3I", 40, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0, 0x3FF00000, 0xFFC00, 0x3FF)
    yield struct.pack("<2sIII", b"BM", 74, 0, 66) + fields + bytes(8), "is a BMP of an uncommon layout"
    for kind in ("WEBP", "PNG"):
        file = io.BytesIO()
        image.save(file, kind, save_all=True, append_images=[PIL.ImageOps.invert(image)])
        yield file.getvalue(), "is an animation; needs one image" if kind == "WEBP" else "has 2 frames; needs one"


@pytest.mark.parametrize(("encoded", "message"), [pytest.param(*case, id=case[1][:24]) for case in named_kinds()])
def test_other_kinds_are_named(encoded, message):
    """Both readers refuse with the same line, which names the kind."""
    for read in (images.decode, sources.decode):
        with pytest.raises(errors.UserError, match=message) as raised:
            read(encoded)
        assert "\n" not in str(raised.value)


def large_jpeg(**options):
    """Returns a JPEG of noise, whose every byte counts, as bytes."""
    return pillow(pictures.noise(0, 320, 240), "JPEG", quality=90, **options)


def test_lost_bytes_of_a_jpeg_are_reported():
    """Where bytes are lost inside, a sentence says how much has no data, and training passes the image over."""
    encoded = large_jpeg()
    assert not images.decode(encoded).damage
    lost = encoded[: len(encoded) // 2] + encoded[-len(encoded) // 10 :]
    image = images.decode(lost)
    assert image.pixels.shape == (320, 240, 3)
    assert 0.25 < float(image.damage.partition("the last ")[2].partition("%")[0]) / 100 < 0.55
    with pytest.raises(errors.UserError, match=r"is a damaged JPEG: the last \d+% of the rows have no data"):
        sources.decode(lost)


@pytest.mark.parametrize("channels", [1, 3])
def test_uncommon_chroma_subsampling(channels):
    """A JPEG whose luma has three samples to one of chroma is read, as libjpeg reads it, and is not called damaged."""
    image = images.decode(bad_files.encoded("f13_uncommon_subsampling.jpg"), channels=channels)
    wanted = UPRIGHT if channels == 3 else cv2.cvtColor(UPRIGHT, cv2.COLOR_RGB2GRAY)[..., None]
    assert np.abs(image.pixels.astype(int) - wanted).mean() < 6
    assert not image.damage and "uncommon chroma subsampling" in image.warnings[0]


def test_stray_bytes_of_a_jpeg_are_no_damage():
    """Cameras write a few bytes before the end marker, and data behind it; neither is reported."""
    encoded = large_jpeg()
    for harmless in (encoded[:-2] + b"\0\0" + encoded[-2:], encoded + bytes(1000)):
        image = images.decode(harmless)
        assert not image.damage and not image.warnings
        np.testing.assert_array_equal(image.pixels, images.decode(encoded).pixels)


def test_the_end_of_a_thumbnail_is_not_the_end():
    """A cut-off JPEG is refused though the thumbnail in its EXIF block has an end marker."""
    encoded = large_jpeg(exif=exif.PREFIX + b"II*\0\x08\0\0\0" + bytes(6) + b"\xff\xd8\xff\xd9")
    assert next(end for marker, _, end in jpeg.segments(encoded) if marker == 0xE1)
    with pytest.raises(errors.UserError, match="is a JPEG without its end"):
        images.decode(encoded[: len(encoded) // 2])


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_training_sees_the_pixels_of_opencv(kind, channels):
    """The pixels equal those of OpenCV, on which earlier versions trained; grey of a PNG within one level."""
    image = cv2.resize(pictures.noise(0), (90, 70), interpolation=cv2.INTER_CUBIC)
    encoded = pillow(image, kind.upper())
    flags = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
    wanted = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags).reshape(70, 90, channels)
    exact = channels == 3 or kind in ("jpeg", "webp")
    assert np.abs(sources.decode(encoded, channels).astype(int) - wanted).max() <= (0 if exact else 1)


def test_hidden_colours_are_reported_in_training(caplog):
    """An image with wholly transparent pixels is trained on, and the log says so, once."""
    source = sources.DecodedSource(pictures.MemorySource((bad_files.encoded("f08_hidden_colour.png"),)))
    for _ in range(2):
        assert source[0][1] == 0
    (record,) = caplog.records
    assert "image0.png:" in record.getMessage() and "wholly transparent" in record.getMessage()


def test_damaged_files_are_user_errors(tmp_path):
    """A hundred randomly changed files are read or refused in one line.

    `tests/fuzz_reading.py` does the same for as long as wanted.
    """
    assert fuzz_reading.main(2, 0, tmp_path) == 0
