"""Tests of metadata: it is carried over unchanged, or a warning names what is lost."""

import io
import struct

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

import bad_files
import pictures
from pconv_jax.inpainting import photograph, photograph_files
from pconv_jax.reading import exif, images, png

MANY = 10**6
GREY_PROFILE = bytes(12) + b"mntrGRAYXYZ " + bytes(120)
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description dc:title="Z\xc3\xbcrich">
<xmp:Thumbnails>preview of what is removed</xmp:Thumbnails></rdf:Description></x:xmpmeta>"""


def read(tmp_path, encoded, name="in.png"):
    """Returns the photograph in a file of these bytes."""
    path = tmp_path / name
    path.write_bytes(encoded)
    return photograph.read(str(path), MANY)


def block(main, settings=(), order="<"):
    """Returns an EXIF block of entries `{tag: (type, count, bytes)}`."""
    directories = {"main": {tag: exif.Entry(*entry) for tag, entry in dict(main).items()}}
    directories["exif"] = {tag: exif.Entry(*entry) for tag, entry in dict(settings).items()}
    return exif.PREFIX + exif.serialise(order, directories)


def entries(written):
    """Returns the entries of an EXIF block by directory and tag."""
    order, directories, damaged = exif.described(written)
    assert not damaged
    return {(name, tag): (order, *vars(entry).values()) for name, d in directories.items() for tag, entry in d.items()}


def exif_of(encoded):
    """Returns the EXIF block of a file."""
    return images.blocks(encoded).exif


@pytest.mark.parametrize("extension", photograph_files.WRITTEN)
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_values_keep_their_bytes(tmp_path, extension, order):
    """Text in UTF-8, odd types and private encodings stay the bytes that they were, in every format."""
    main = {
        0x10E: (2, 7, "翻訳".encode() + b"\0"),
        0x13B: (129, 16, "Jürgen Müller".encode() + b"\0"),
        0x131: (11, 1, struct.pack(f"{order}f", 1.0)),
        0x9C9B: (1, 6, "ü1".encode("utf-16-le") + b"\0\0"),
    }
    settings = {
        0x9286: (7, 300, b"UNICODE\0" + bytes(range(256)) + bytes(36)),
        0x829A: (5, 1, struct.pack(f"{order}2I", 1, 60)),
    }
    encoded = png.with_chunks(bad_files.encoded("upright.png"), [(b"eXIf", block(main, settings, order)[6:])])
    photo = read(tmp_path, encoded)
    assert not photo.warnings and not photograph_files.losses(photo, extension)
    wanted = {("main", tag): (order, *entry) for tag, entry in main.items()}
    wanted |= {("exif", tag): (order, *entry) for tag, entry in settings.items()}
    assert entries(exif_of(photograph_files.encode(photo, extension))) == wanted


@pytest.mark.parametrize("name", ["f04_utf8_exif.jpg", "f04_odd_tag.jpg"])
@pytest.mark.parametrize("extension", photograph_files.WRITTEN)
def test_odd_exif_is_no_damage(tmp_path, name, extension):
    """Photographs with EXIF that Pillow cannot decode or encode are read and written, with the same values."""
    photo = read(tmp_path, bad_files.encoded(name), name)
    assert photo.pixels.shape == (32, 48, 3)
    before, after = (
        entries(exif_of(bad_files.encoded(name))),
        entries(exif_of(photograph_files.encode(photo, extension))),
    )
    assert before and after == before


def test_damaged_exif_values_are_left_out(tmp_path):
    """An entry that points outside the block is left out with a warning; the others and the picture stay."""
    damaged = bytearray(block({0x10F: (2, 6, b"Maker\0"), 0x110: (2, 6, b"Model\0")}))
    at = damaged.index(struct.pack("<HHI", 0x110, 2, 6)) + 8
    damaged[at : at + 4] = struct.pack("<I", 10**9)
    for content, kept in ((bytes(damaged), 1), (b"Exif\0\0II*\0" + b"\xff" * 40, 0), (b"no block", 0)):
        photo = read(tmp_path, png.with_chunks(bad_files.encoded("upright.png"), [(b"eXIf", content)]))
        assert len(entries(photo.exif)) == kept
        assert any("damaged EXIF values were left out" in warning for warning in photo.warnings)


def test_more_exif_than_a_jpeg_holds(tmp_path):
    """Of 200 kB of EXIF the largest value is left out of a JPEG, with a warning; other formats hold all of it."""
    content = block({0x10F: (2, 6, b"Maker\0")}, {0x9286: (7, 200_000, bytes(200_000))})
    photo = read(tmp_path, png.with_chunks(bad_files.encoded("upright.png"), [(b"eXIf", content[6:])]))
    assert [*entries(exif_of(photograph_files.encode(photo, ".jpg")))] == [("main", 0x10F)]
    assert (
        "1 EXIF values were left out: the format has room for 65533 bytes" in photograph_files.losses(photo, ".jpg")[0]
    )
    for extension in photograph_files.LOSSLESS:
        assert not photograph_files.losses(photo, extension)
        assert len(entries(exif_of(photograph_files.encode(photo, extension)))) == 2


def test_adobe_rgb_by_exif_alone(tmp_path):
    """The interoperability index R03, the only sign of Adobe RGB in cameras' JPEGs, is kept; R98 is not."""
    for index, kept in ((b"R03\0", True), (b"R98\0", False)):
        directories = {
            "main": {0x10F: exif.Entry(2, 6, b"Maker\0")},
            "exif": {0xA001: exif.Entry(3, 1, b"\xff\xff")},
            "interoperability": {1: exif.Entry(2, 4, index), 2: exif.Entry(7, 4, b"0100")},
        }
        encoded = png.with_chunks(bad_files.encoded("upright.png"), [(b"eXIf", exif.serialise("<", directories))])
        written = photograph_files.encode(read(tmp_path, encoded), ".jpg")
        with PIL.Image.open(io.BytesIO(written)) as image:
            assert image.getexif().get_ifd(0xA005).get(1) == ("R03" if kept else None)
            assert image.getexif().get_ifd(0x8769)[0xA001] == 0xFFFF


CHUNKS = {
    b"gAMA": struct.pack(">I", 100_000),
    b"cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
    b"cICP": bytes([9, 16, 0, 1]),
    b"sRGB": b"\1",
}


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("name", ["upright.png", "upright16.png"])
def test_colour_chunks_are_carried_over(tmp_path, kind, name):
    """gAMA, cHRM, cICP and sRGB come back in a PNG; for other formats a warning names what is lost."""
    photo = read(tmp_path, png.with_chunks(bad_files.encoded(name), [(kind, CHUNKS[kind])]))
    assert images.blocks(photograph_files.encode(photo, ".png")).colour == ((kind, CHUNKS[kind]),)
    assert not photograph_files.losses(photo, ".png")
    losses = photograph_files.losses(photo, ".jpg")
    assert losses == [] if kind == b"sRGB" else kind.decode() in losses[0] and "may look different" in losses[0]


def test_the_gamma_of_the_sample(tmp_path):
    """The sample with gamma 1.0 keeps it."""
    photo = read(tmp_path, bad_files.encoded("f05_gamma1.png"))
    with PIL.Image.open(io.BytesIO(photograph_files.encode(photo, ".png"))) as image:
        assert image.info["gamma"] == 1.0


def test_a_usual_gamma_is_no_warning(tmp_path):
    """The gamma of sRGB, which most programs write, loses nothing in a JPEG."""
    photo = read(tmp_path, png.with_chunks(bad_files.encoded("upright.png"), [(b"gAMA", struct.pack(">I", 45455))]))
    assert not photograph_files.losses(photo, ".jpg")


def test_a_grey_profile_stays_with_grey(tmp_path):
    """A profile for grey goes into grey files; where grey is written as RGB, it is left out with a warning."""
    grey = imagecodecs.png_encode(np.ascontiguousarray(bad_files.pixels("upright.png")[..., 0]))
    photo = read(tmp_path, png.with_chunks(grey, [png.profile_chunk(GREY_PROFILE)]))
    for extension in (".png", ".tif", ".jpg"):
        assert images.blocks(photograph_files.encode(photo, extension)).icc == GREY_PROFILE
        assert not photograph_files.losses(photo, extension)
    assert images.blocks(photograph_files.encode(photo, ".webp")).icc is None
    assert "the grey profile was left out" in photograph_files.losses(photo, ".webp")[0]
    rgb = read(tmp_path, png.with_chunks(bad_files.encoded("upright.png"), [png.profile_chunk(GREY_PROFILE)]))
    assert images.blocks(photograph_files.encode(rgb, ".png")).icc is None
    assert photograph_files.losses(rgb, ".png")


@pytest.mark.parametrize("source", photograph_files.WRITTEN)
@pytest.mark.parametrize("extension", photograph_files.WRITTEN)
def test_xmp_and_resolution_are_kept(tmp_path, source, extension):
    """XMP goes from every format into every other without previews; so does the print resolution."""
    pixels = bad_files.pixels("upright.png")
    first = photograph_files.encode(photograph.Photograph(pixels, xmp=XMP, dpi=(300.0, 300.0)), source)
    photo = read(tmp_path, first, f"in{source}")
    assert b"preview" not in photo.xmp
    blocks = images.blocks(photograph_files.encode(photo, extension))
    assert blocks.xmp == photo.xmp and b"Z\xc3\xbcrich" in blocks.xmp
    if ".webp" not in (source, extension):  # WebP has no field for it.
        np.testing.assert_allclose(blocks.dpi, (300, 300), rtol=0.001)


@pytest.mark.parametrize("dpi", [(1e9, 300), (300, 0.01), (31_000, 31_000)])
def test_absurd_resolutions_are_left_out(tmp_path, dpi):
    """A print resolution that no printer has is not kept, as formats differ in what they can hold."""
    encoded = png.with_chunks(
        bad_files.encoded("upright.png"),
        [(b"pHYs", struct.pack(">IIB", *(min(round(x / 0.0254), 2**31 - 1) for x in dpi), 1))],
    )
    photo = read(tmp_path, encoded)
    assert photo.dpi is None and all(
        photograph_files.encode(photo, extension) for extension in photograph_files.WRITTEN
    )


@pytest.mark.parametrize("orientation", [1, 6])
def test_xmp_is_upright_where_pixels_were_turned(tmp_path, orientation):
    """Where EXIF's orientation was applied, XMP's is set to upright; else it stays as it was."""
    content = exif.serialise("<", {"main": {0x112: exif.Entry(3, 1, struct.pack("<H", orientation))}})
    for text, value in (
        (b'tiff:Orientation="6"', b'tiff:Orientation="%d"'),
        (b"<tiff:Orientation>6<", b"<tiff:Orientation>%d<"),
    ):
        chunks = [(b"eXIf", content), png.xmp_chunk(b"<rdf " + text + b"/>")]
        photo = read(tmp_path, png.with_chunks(bad_files.encoded("upright.png"), chunks))
        assert photo.xmp == b"<rdf " + value % (1 if orientation == 6 else 6) + b"/>"
        assert photo.turned == (orientation == 6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_written_tiffs_are_read_by_others(channels):
    """tifffile and Pillow read the TIFFs that are written: pixels, alpha, profile, EXIF and resolution."""
    array = pictures.noise(0, 21, 30, channels)
    colours = 1 if channels < 3 else 3
    alpha = array[..., colours:] if channels in (2, 4) else None
    content = block({0x10F: (2, 6, b"Maker\0")}, {0x9003: (2, 20, b"2020:02:03 04:05:06\0")})
    photo = photograph.Photograph(array[..., :colours], alpha, b"profile", content, XMP, (72.0, 96.0))
    encoded = photograph_files.encode(photo, ".tif")
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        np.testing.assert_array_equal(file.asarray().reshape(array.shape), array)
        assert file.pages.first.tags[34675].value == b"profile" and file.pages.first.tags[700].value == XMP
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(array.shape), array)
        assert image.info["dpi"] == (72, 96) and image.getexif()[0x10F] == "Maker"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2020:02:03 04:05:06"
