"""The numbers of a TIFF are read by what its tags say: white or black as zero, planes, alpha, pages, orientation."""

import io
import struct

import numpy as np
import pytest
import tifffile

import bad_files
from file_cases import tiff
from pconv_jax import errors
from pconv_jax.reading import exif, images

UPRIGHT, UPRIGHT_16 = bad_files.pixels("upright.png"), bad_files.pixels("upright16.png")


@pytest.mark.parametrize("name", ["f01_orientation3.tif", "f01_orientation3_16bit.tif"])
def test_tiff_orientation_is_not_applied_twice(name):
    """A TIFF that is stored upside down is upright, as Pillow and OpenCV turned it once and this package again."""
    image = images.decode(bad_files.encoded(name))
    assert image.orientation == 3
    np.testing.assert_array_equal(image.pixels, UPRIGHT if image.pixels.dtype == np.uint8 else UPRIGHT_16)


def test_white_is_zero():
    """Min-is-white files of 8 and 16 bits have the picture, not its negative, and a mask has its hole."""
    np.testing.assert_array_equal(bad_files.pixels("f02_mask_white_is_zero16.tif") >> 8, bad_files.pixels("mask.png"))
    positive = images.decode(bad_files.encoded("f02_white_is_zero16.tif")).pixels
    negative = tifffile.imread(bad_files.DIRECTORY / "f02_white_is_zero16.tif")[..., None]
    np.testing.assert_array_equal(positive, 65535 - negative)
    for array in (UPRIGHT[..., 0], UPRIGHT_16[..., 1:2][..., 0]):
        white = np.iinfo(array.dtype).max
        np.testing.assert_array_equal(
            images.decode(tiff(white - array, photometric="miniswhite")).pixels[..., 0], array
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplied_colours_are_divided_by_alpha(dtype):
    """Colours of a TIFF with associated alpha come out as they were before the multiplication, up to rounding."""
    colours = UPRIGHT if dtype == np.uint8 else UPRIGHT_16
    white = np.iinfo(dtype).max
    alpha = np.full((*colours.shape[:2], 1), white * 3 // 5, dtype)
    product = np.round(colours.astype(float) * alpha / white).astype(dtype)
    encoded = tiff(np.concatenate([product, alpha], axis=-1), photometric="rgb", extrasamples=["assocalpha"])
    image = images.decode(encoded)
    np.testing.assert_array_equal(image.alpha, alpha)
    assert np.abs(image.pixels.astype(int) - colours).max() <= 1
    sample = images.decode(bad_files.encoded("f02_premultiplied16.tif"))
    assert np.abs(sample.pixels.astype(int) - UPRIGHT_16).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_spare_channels_are_not_transparency(dtype):
    """An unspecified fourth channel is left out with a warning; unassociated alpha is alpha."""
    colours = UPRIGHT if dtype == np.uint8 else UPRIGHT_16
    array = np.concatenate([colours, colours[..., :1]], axis=-1)
    image = images.decode(tiff(array, photometric="rgb", extrasamples=["unspecified"]))
    assert image.alpha is None and "extra channels that are not transparency" in image.warnings[0]
    np.testing.assert_array_equal(image.pixels, colours)
    image = images.decode(tiff(array, photometric="rgb", extrasamples=["unassalpha"]))
    assert not image.warnings
    np.testing.assert_array_equal(image.alpha, colours[..., :1])


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_layouts(dtype, planar, compression):
    """Planes apart or together, in strips or tiles, compressed or not, with either byte order: the same pixels."""
    colours = UPRIGHT if dtype == np.uint8 else UPRIGHT_16
    stored = np.moveaxis(colours, -1, 0) if planar == "separate" else colours
    for options in ({}, {"tile": (16, 16)}, {"byteorder": ">"}, {"rowsperstrip": 5}):
        encoded = tiff(stored, photometric="rgb", planarconfig=planar, compression=compression, **options)
        np.testing.assert_array_equal(images.decode(encoded).pixels, colours)


def test_a_preview_page_is_ignored():
    """A second page that NewSubfileType calls a reduced version of the first is no second image."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(UPRIGHT, photometric="rgb", metadata=None)
        writer.write(UPRIGHT[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(images.decode(file.getvalue()).pixels, UPRIGHT)


def test_a_claim_of_too_many_pixels():
    """A small TIFF whose tags claim hundreds of megabytes is refused before any memory is taken."""
    claim = bytearray(tiff(np.zeros((32, 48), np.uint8), photometric="minisblack", compression="zlib"))
    for tag in (256, 257, 278):
        at = claim.index(struct.pack("<HHI", tag, 4, 1))
        claim[at + 8 : at + 12] = struct.pack("<I", 14_000)
    with pytest.raises(errors.UserError, match="is damaged: its tags claim 196000000 bytes of pixels"):
        images.decode(bytes(claim), 200_000_000)


def test_a_jpeg_inside_that_claims_too_many_pixels():
    """A JPEG in a strip that claims 800 million pixels is refused by its header."""
    encoded = tiff(UPRIGHT[..., 1], photometric="minisblack", compression="jpeg")
    assert np.abs(images.decode(encoded).pixels[..., 0].astype(int) - UPRIGHT[..., 1]).mean() < 6
    claim = encoded.replace(struct.pack(">HH", 32, 48), struct.pack(">HH", 22854, 36483))
    assert claim != encoded
    with pytest.raises(errors.UserError, match="is damaged: a JPEG inside it claims to be 36483x22854"):
        images.decode(claim)


def test_other_compressions_are_named():
    """Compressions with sizes of their own, such as JPEG 2000, are refused by name."""
    encoded = tiff(UPRIGHT, photometric="rgb", compression="jpeg2000")
    with pytest.raises(
        errors.UserError, match=r"is a TIFF with .*2000.* compression, which is not read: convert it first"
    ):
        images.decode(encoded)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma", "jpeg"])
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}], ids=str)
def test_no_pixel_is_made_up(compression, options):
    """A TIFF whose last strip or tile is short, absent or beyond the end of the file is refused, or is complete."""
    whole = tiff(UPRIGHT, photometric="rgb", compression=compression, **options)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        page = file.pages.first
        last = len(page.databytecounts) - 1
        places = {}
        tags = (325, 324) if page.is_tiled else (279, 273)
        for code, values in zip((279, 273), (page.databytecounts, page.dataoffsets), strict=True):
            tag = page.tags[tags[code == 273]]
            format_ = "<H" if tag.dtype == 3 else "<I"
            places[code] = format_, tag.valueoffset + last * struct.calcsize(format_), values[-1]
    pixels, refused = images.decode(whole).pixels, 0
    size = places[279][2]
    for code, number in ((279, 0), (279, size // 2), (279, size - 20), (279, 65535), (273, len(whole) - 9)):
        changed = bytearray(whole)
        struct.pack_into(places[code][0], changed, places[code][1], number)
        try:
            np.testing.assert_array_equal(images.decode(bytes(changed)).pixels, pixels)
        except errors.UserError:
            refused += 1
    assert refused >= 4


def test_damaged_lzw_does_not_end_the_process():
    """Random changes of LZW data are a picture or an error; imagecodecs' decoder crashed on some of them."""
    encoded = tiff(UPRIGHT, photometric="rgb", compression="lzw")
    rng, start, refused = np.random.default_rng(0), 300, 0
    for _ in range(300):
        changed = bytearray(encoded)
        for at in rng.integers(start, len(encoded), 3):
            changed[at] = rng.integers(256)
        try:
            assert images.decode(bytes(changed)).pixels.shape == UPRIGHT.shape
        except errors.UserError:
            refused += 1
    assert refused > 0


def test_too_few_strips():
    """A height that the strips do not reach is refused, and the missing rows are not black."""
    encoded = bytearray(tiff(UPRIGHT[..., 1], photometric="minisblack", rowsperstrip=32))
    at = encoded.index(struct.pack("<HHI", 257, 4, 1)) + 8
    encoded[at : at + 4] = struct.pack("<I", 2_752_586)
    with pytest.raises(errors.UserError, match="a TIFF that lacks some of its pixels"):
        images.decode(bytes(encoded))


def test_a_tiff_without_a_meaning_of_its_numbers():
    """Where PhotometricInterpretation is missing, nothing is guessed."""
    encoded = bytearray(tiff(UPRIGHT[..., 1], photometric="minisblack"))
    at = encoded.index(struct.pack("<HHI", 262, 3, 1))
    encoded[at : at + 2] = struct.pack("<H", 263)
    with pytest.raises(errors.UserError, match="does not say what its numbers mean"):
        images.decode(bytes(encoded))


def _file(pixels, bits, photometric, data, **more):
    """Returns a TIFF of one strip with exactly these tags; `more` holds tags as `_317=2`."""
    height, width = pixels.shape[:2]
    tags = {256: width, 257: height, 258: [bits] * pixels.shape[2], 259: 1, 262: photometric, 273: 8}
    tags |= {277: pixels.shape[2], 278: height, 279: len(data)} | {int(name[1:]): value for name, value in more.items()}
    values = {tag: np.ravel(value).astype("<u2") for tag, value in tags.items()}
    return exif.serialise("<", {"main": {t: exif.Entry(3, v.size, v.tobytes()) for t, v in values.items()}}, data)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_every_depth(bits):
    """A palette of 1 bit has its two colours, as those of more bits have theirs."""
    rng = np.random.default_rng(0)
    indices, colours = rng.integers(0, 2**bits, (8, 16)), rng.integers(0, 256, (2**bits, 3))
    data = np.packbits((indices[..., None] >> np.arange(bits - 1, -1, -1)) & 1).tobytes()
    encoded = _file(indices[..., None], bits, 3, data, _320=colours.T * 257)
    np.testing.assert_array_equal(images.decode(encoded).pixels, colours[indices])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"_317": 2}, "a predictor and without compression"),
        ({"_254": 1, "_330": 8}, "is a preview, with the image itself inside"),
        ({"_262": 3}, "palette entries without a palette"),
    ],
)
def test_numbers_of_doubtful_meaning_are_refused(more, message):
    """Differences that are perhaps none, the preview of a raw photograph, and a missing palette are named."""
    grey = UPRIGHT[..., :1]
    np.testing.assert_array_equal(images.decode(_file(grey, 8, 1, grey.tobytes())).pixels, grey)
    with pytest.raises(errors.UserError, match=message):
        images.decode(_file(grey, 8, 1, grey.tobytes(), **more))


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}])
def test_lost_bytes_of_a_jpeg_inside_are_reported(layout):
    """JPEG data that end early are reported, as in a file of their own."""
    encoded = tiff(UPRIGHT, photometric="rgb", compression="jpeg", **layout)
    assert images.decode(encoded).damage == ""
    page = tifffile.TiffFile(io.BytesIO(encoded)).pages.first
    start, size = page.dataoffsets[0], page.databytecounts[0]
    scan = encoded.index(b"\xff\xda", start) + 14
    damaged = encoded[:scan] + (encoded[scan : scan + 20] + b"\xff\xd9").ljust(start + size - scan, b"\0")
    assert "damaged JPEG data" in images.decode(damaged + encoded[start + size :]).damage
