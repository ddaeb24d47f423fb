"""Tests of reading and writing photographs: pixels, depth, alpha, colour profile and EXIF are kept."""

import io
import pathlib
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest

import pictures
from pconv_jax.inpainting import photograph, photograph_files

ICC = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
MANY = 10**6


def noise(channels, dtype=np.uint8, height=21, width=30):
    """Returns noise in which every value of the dtype may occur, so that 16 bits are not 8 bits twice."""
    rng = np.random.default_rng(channels)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)


def save(path, array, mode=None, **options):
    """Writes an 8-bit file by Pillow."""
    array = array[..., 0] if array.shape[-1] == 1 else array
    image = PIL.Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return str(path)


def save_16(path, array):
    """Writes a 16-bit file by OpenCV."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[-1]]
    assert cv2.imwrite(str(path), array[..., order])
    return str(path)


def png(array, colour_type, *extra):
    """Writes a 16-bit PNG of any kind by the specification; the chunks `extra` come before the pixels."""

    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    height, width = array.shape[:2]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour_type, 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def write(path, content):
    path.write_bytes(content)
    return str(path)


def whole(photo):
    """Returns all channels of a photograph, alpha included."""
    return photo.pixels if photo.alpha is None else np.concatenate([photo.pixels, photo.alpha], axis=-1)


@pytest.mark.parametrize("extension", photograph_files.LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_8_bits_come_back(tmp_path, channels, extension):
    """Grey and RGB, with and without alpha, keep all values and the colours under transparency. WebP has no grey."""
    array = noise(channels)
    first = photograph.read(save(tmp_path / "in.png", array), MANY)
    np.testing.assert_array_equal(whole(first), array)
    assert first.pixels.shape[-1] == (1 if channels < 3 else 3)
    again = photograph.read(write(tmp_path / f"out{extension}", photograph_files.encode(first, extension)), MANY)
    assert again.pixels.dtype == np.uint8
    assert (again.pixels == first.pixels).all() and (again.pixels.shape == first.pixels.shape or extension == ".webp")
    np.testing.assert_array_equal(again.alpha, first.alpha)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_come_back(tmp_path, channels, extension):
    """PNG and TIFF keep all 16 bits, and Pillow and OpenCV agree on what was written."""
    array = noise(channels, np.uint16)
    first = photograph.read(save_16(tmp_path / f"in{extension}", array), MANY)
    assert first.pixels.dtype == np.uint16
    np.testing.assert_array_equal(whole(first), array)
    encoded = photograph_files.encode(first, ".png")
    np.testing.assert_array_equal(whole(photograph.read(write(tmp_path / "out.png", encoded), MANY)), array)
    if channels > 1:  # Pillow has the upper eight bits of colour
        with PIL.Image.open(io.BytesIO(encoded)) as image:
            np.testing.assert_array_equal(np.asarray(image), array >> 8)


def test_16_bit_grey_with_alpha(tmp_path):
    """16-bit grey with alpha is read and written as it is."""
    array = noise(2, np.uint16)
    first = photograph.read(write(tmp_path / "in.png", png(array, 4)), MANY)
    np.testing.assert_array_equal(whole(first), array)
    again = photograph.read(write(tmp_path / "out.png", photograph_files.encode(first, ".png")), MANY)
    np.testing.assert_array_equal(whole(again), array)


def test_16_bit_transparent_colour(tmp_path):
    """With a tRNS chunk, one colour of an RGB file is transparent, and the alpha channel marks its pixels."""
    array = noise(3, np.uint16)
    key = array[3, 4].astype(">u2").tobytes()
    photo = photograph.read(write(tmp_path / "in.png", png(array, 2, (b"tRNS", key))), MANY)
    np.testing.assert_array_equal(photo.pixels, array)
    np.testing.assert_array_equal(photo.alpha[..., 0] == 0, (array == array[3, 4]).all(axis=-1))


def test_palettes_and_bits_become_8_bit(tmp_path):
    """A palette becomes RGB, or RGBA with transparency, and a bitmap becomes grey."""
    palette = PIL.Image.fromarray(noise(3)).quantize(16)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(
        photograph.read(str(tmp_path / "p.png"), MANY).pixels, np.asarray(palette.convert("RGB"))
    )
    palette.save(tmp_path / "t.png", transparency=0)
    photo = photograph.read(str(tmp_path / "t.png"), MANY)
    np.testing.assert_array_equal(photo.alpha[..., 0] == 0, np.asarray(palette) == 0)
    bits = noise(1)[..., 0] > 127
    PIL.Image.fromarray(bits).save(tmp_path / "b.png")
    np.testing.assert_array_equal(photograph.read(str(tmp_path / "b.png"), MANY).pixels[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("extension", [".jpg", ".jpeg"])
def test_jpeg_is_close_and_not_more(tmp_path, extension):
    """Smooth content differs by a few levels. An opaque alpha channel is dropped, a transparent one is refused."""
    y, x = np.mgrid[:40, :50]
    photo = photograph.Photograph(np.stack([x * 4, y * 5, x + y], axis=-1).astype(np.uint8), icc=ICC)
    again = photograph.read(write(tmp_path / f"o{extension}", photograph_files.encode(photo, extension)), MANY)
    assert np.abs(again.pixels.astype(int) - photo.pixels).max() < 12 and again.icc == ICC
    opaque = np.full((40, 50, 1), 255, np.uint8)
    assert photograph_files.encode(photograph.Photograph(photo.pixels, opaque, ICC), extension)
    opaque[3, 3] = 254
    with pytest.raises(ValueError, match=rf"has transparent pixels, which {extension} does not hold: use .png"):
        photograph_files.encode(photograph.Photograph(photo.pixels, opaque), extension)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_orientation(tmp_path, orientation, dtype):
    """Pixels are upright, as Pillow turns them, and the written file does not turn them again."""
    array = noise(3, dtype)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    if dtype == np.uint8:
        path = save(tmp_path / "in.png", array, exif=exif)
    else:
        path = write(tmp_path / "in.png", png(array, 2, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
    upper = PIL.Image.fromarray((array >> 8 if dtype == np.uint16 else array).astype(np.uint8))
    upper.getexif()[274] = orientation
    expected = np.asarray(PIL.ImageOps.exif_transpose(upper))
    photo = photograph.read(path, MANY)
    np.testing.assert_array_equal(photo.pixels >> 8 if dtype == np.uint16 else photo.pixels, expected)
    encoded = photograph_files.encode(photo, ".png")
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        assert image.size == expected.shape[1::-1] and 274 not in image.getexif()


def described():
    """Returns EXIF as a camera writes it, with orientation, description, settings, place, maker's note and sizes."""
    exif = PIL.Image.Exif()
    exif[274], exif[0x10F], exif[0x11A] = 6, "Maker", 72.0
    exif[0x8769] = {0x9003: "2020:02:03 04:05:06", 0x927C: b"preview of what is removed", 0xA002: 30, 0xA003: 21}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    return exif


@pytest.mark.parametrize("extension", [".png", ".webp", ".tif", ".jpg"])
def test_exif_and_profile_are_kept(tmp_path, extension):
    """EXIF about the photograph stays; entries about its file, and previews, are removed."""
    photo = photograph.read(save(tmp_path / "in.jpg", noise(3), exif=described(), icc_profile=ICC), MANY)
    encoded = photograph_files.encode(photo, extension)
    assert b"preview" not in encoded and b"preview" not in photo.exif
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        exif = image.getexif()
        assert image.info["icc_profile"] == ICC
        assert exif[0x10F] == "Maker" and exif.get(274, 1) == 1
        assert dict(exif.get_ifd(0x8769)) == {0x9003: "2020:02:03 04:05:06"}
        assert exif.get_ifd(0x8825)[1] == "N" and exif.get_ifd(0x8825)[2] == (48.0, 8.0, 0.0)


def test_exif_and_profile_are_kept_with_16_bits(tmp_path):
    """EXIF and profile are also kept in a PNG of 16 bits."""
    exif = described().tobytes().removeprefix(b"Exif\0\0")
    profile = b"profile\0\0" + zlib.compress(ICC)
    path = write(tmp_path / "in.png", png(noise(3, np.uint16), 2, (b"iCCP", profile), (b"eXIf", exif)))
    encoded = photograph_files.encode(photograph.read(path, MANY), ".png")
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        assert image.info["icc_profile"] == ICC
        assert image.getexif()[0x10F] == "Maker" and 274 not in image.getexif()
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2020:02:03 04:05:06"


def test_a_thumbnail_goes(tmp_path):
    """IFD1 is removed, because it shows the photograph as it was before the filling."""
    thumbnail = b"\xff\xd8thumbnail\xff\xd9"

    def ifd(entries, following):
        packed = b"".join(
            tag.to_bytes(2, "little")
            + kind.to_bytes(2, "little")
            + (1).to_bytes(4, "little")
            + value.to_bytes(4, "little")
            for tag, kind, value in entries
        )
        return len(entries).to_bytes(2, "little") + packed + following.to_bytes(4, "little")

    first, second = 8, 8 + 18
    block = b"Exif\0\0II*\0" + first.to_bytes(4, "little") + ifd([(0x112, 3, 1)], second)
    block += ifd([(0x201, 4, second + 30), (0x202, 4, len(thumbnail))], 0) + thumbnail
    path = save(tmp_path / "in.jpg", noise(3), exif=block)
    assert thumbnail in pathlib.Path(path).read_bytes()
    photo = photograph.read(path, MANY)
    assert photo.exif == b"" and all(
        thumbnail not in photograph_files.encode(photo, e) for e in photograph_files.WRITTEN
    )


def test_a_telephones_jpeg(tmp_path):
    """Of an MPO, which has a second picture behind the first, the first is the photograph."""
    first, second = (PIL.Image.fromarray(pictures.noise(k)) for k in (1, 2))
    first.save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[second])
    assert photograph.read(str(tmp_path / "in.jpg"), MANY).pixels.shape == (40, 60, 3)


def test_files_that_are_refused(tmp_path):
    """Each error has the file's name, its kind and what is needed."""
    array = noise(3)
    good = io.BytesIO()
    PIL.Image.fromarray(array).save(good, "PNG")
    cut = photograph_files.encode(photograph.Photograph(noise(3, np.uint16)), ".png")
    torn = bytearray(cv2.imencode(".tif", noise(3, np.uint16))[1].tobytes())
    torn[1000:1100] = bytes(100)
    frames = [PIL.Image.fromarray(pictures.noise(k)) for k in (1, 2)]
    frames[0].save(tmp_path / "frames.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    frames[0].convert("I").save(tmp_path / "i32.tif")
    frames[0].convert("F").save(tmp_path / "f32.tif")
    frames[0].save(tmp_path / "gif.png", "GIF")
    cases = {
        write(tmp_path / "empty.png", b""): "is empty",
        write(
            tmp_path / "text.jpg", b"hello"
        ): r"is not an image of a known format; needs JPEG, PNG, WebP, TIFF or BMP",
        write(tmp_path / "cut.png", good.getvalue()[:200]): "is damaged, or cut off: a PNG without its end",
        write(tmp_path / "cut16.png", cut[:900]): "is damaged, or cut off: a PNG without its end",
        write(tmp_path / "torn.tif", bytes(torn)): "is damaged, or cut off",
        save(tmp_path / "cmyk.jpg", array, "CMYK"): "is CMYK; needs grey or RGB",
        save(tmp_path / "lab.tif", array, "LAB"): "is LAB; needs",
        str(tmp_path / "i32.tif"): "is 32 bits signed; needs 8 or 16 bits",
        str(tmp_path / "f32.tif"): "is 32 bits floating point; needs",
        str(tmp_path / "frames.png"): "has 2 frames; needs one",
        str(tmp_path / "pages.tif"): "has 2 frames; needs one",
        str(tmp_path / "gif.png"): "is a GIF; needs JPEG, PNG, WebP, TIFF or BMP: convert it first",
    }
    for path, message in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            photograph.read(path, MANY)
        assert path in str(raised.value)
    with pytest.raises(FileNotFoundError):
        photograph.read(str(tmp_path / "none.png"), MANY)
    with pytest.raises(IsADirectoryError):
        photograph.read(str(tmp_path), MANY)


def test_the_pixel_limit(tmp_path):
    """The limit applies to the size in the header, before anything is decoded, and replaces Pillow's limit."""
    limit = PIL.Image.MAX_IMAGE_PIXELS
    path = save(tmp_path / "in.png", noise(3))
    assert photograph.read(path, 630).pixels.shape == (21, 30, 3)
    with pytest.raises(ValueError, match=r"in.png is 30x21, more than 629 pixels: raise --max_pixels"):
        photograph.read(path, 629)
    bomb = png(np.zeros((1, 1, 3)), 2)
    bomb = bomb[:16] + (60000).to_bytes(4, "big") + (50000).to_bytes(4, "big") + bomb[24:]
    bomb = bomb[:29] + zlib.crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]
    with pytest.raises(ValueError, match="is 60000x50000, more than 200000000 pixels"):
        photograph.read(write(tmp_path / "bomb.png", bomb), 200_000_000)
    assert limit == PIL.Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("photo", "extension", "message"),
    [
        (photograph.Photograph(noise(3, np.uint16)), ".jpg", "has 16 bits per channel, which .jpg is not written with"),
        (photograph.Photograph(noise(1, np.uint16)), ".tif", "has 16 bits"),
        (photograph.Photograph(noise(3, np.uint16)), ".webp", "has 16 bits"),
        (photograph.Photograph(np.zeros((1, 16384, 1), np.uint8)), ".webp", "16384x1; .webp has at most 16383"),
        (photograph.Photograph(np.zeros((65536, 1, 1), np.uint8)), ".jpeg", "1x65536; .jpeg has at most 65535"),
    ],
)
def test_what_a_format_does_not_hold(photo, extension, message):
    with pytest.raises(ValueError, match=message):
        photograph_files.encode(photo, extension)
