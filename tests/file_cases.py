"""Yields files as Pillow, OpenCV, tifffile and ImageMagick write them, each with the picture that it holds.

`cases()` yields some 500 files: formats, depths, channels, orientations, kinds of alpha, profiles and compressions.
"""

import dataclasses
import io
import itertools
from collections.abc import Iterator

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import tifffile

import bad_files
import imagemagick_files
import pictures
from pconv_jax.reading import exif, images

PROFILE = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
RGB = bad_files.pixels("upright.png")
RGB_16 = bad_files.pixels("upright16.png")
ALPHA = np.broadcast_to((np.arange(48) * 5 + 15).astype(np.uint8)[None, :, None], (32, 48, 1))


@dataclasses.dataclass(frozen=True)
class Case:
    """A file and the picture that it holds.

    Attributes:
      name: writer and options.
      encoded: the bytes of the file.
      pixels: the upright picture `[H, W, C]`; None where the file is of a kind that may only be refused.
      alpha: its alpha channel, or None.
      tolerance: largest mean difference per pixel in grey levels of 255; 0 for lossless files.
    """

    name: str
    encoded: bytes
    pixels: np.ndarray | None
    alpha: np.ndarray | None = None
    tolerance: float = 0


def cases() -> Iterator[Case]:
    """Yields all files."""
    yield from pillow_cases()
    yield from opencv_cases()
    yield from tifffile_cases()
    yield from png_cases()
    for name, encoded, pixels in imagemagick_files.files(RGB, stored):
        yield Case(f"ImageMagick {name}", encoded, pixels, None, 6 if name.startswith(("jpg", "webp")) else 0)


def stored(array, orientation):
    """Returns the pixels that `orientation` makes upright."""
    return np.ascontiguousarray(images.upright(array, {6: 8, 8: 6}.get(orientation, orientation)))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_block(orientation):
    entry = exif.Entry(3, 1, orientation.to_bytes(2, "little"))
    return exif.PREFIX + exif.serialise("<", {"main": {exif.ORIENTATION: entry}})


def pillow_image(array):
    return PIL.Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def pillow_cases():
    """Yields files that Pillow writes."""
    grey, rgba = RGB[..., 1:2], np.concatenate([RGB, ALPHA], axis=-1)
    arrays = {"L": (grey, None), "RGB": (RGB, None), "RGBA": (RGB, ALPHA), "LA": (grey, ALPHA)}
    formats = {
        "PNG": ({"compress_level": 1}, {"compress_level": 9, "optimize": True}),
        "JPEG": (
            {"quality": 95, "subsampling": 0},
            {"quality": 90, "subsampling": 1},
            {"quality": 90, "progressive": True},
            {"quality": 95, "restart_marker_rows": 1},
        ),
        "WEBP": ({"lossless": True, "exact": True}, {"quality": 95}),
        "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "packbits"}),
    }
    for (kind, variants), (mode, (pixels, alpha)) in itertools.product(formats.items(), arrays.items()):
        if kind == "JPEG" and alpha is not None:
            continue
        whole = pixels if alpha is None else np.concatenate([pixels, alpha], axis=-1)
        lossy = kind == "JPEG" or (kind == "WEBP")
        wanted = np.broadcast_to(pixels, RGB.shape) if kind == "WEBP" else pixels
        for options, orientation in itertools.product(variants, range(1, 9)):
            if orientation > 1 and options is not variants[0]:
                continue
            more = {"exif": exif_block(orientation)} if orientation > 1 else {}
            encoded = saved(pillow_image(stored(whole, orientation)), kind, **options, **more)
            exact = not lossy or options.get("lossless")
            yield Case(
                f"Pillow {kind} {mode} {options} orientation {orientation}", encoded, wanted, alpha, 0 if exact else 6
            )
        yield Case(
            f"Pillow {kind} {mode} with a profile",
            saved(pillow_image(whole), kind, icc_profile=PROFILE, **variants[0]),
            wanted,
            alpha,
            6 if kind == "JPEG" else 0,
        )
    bits = grey[..., 0] > 127
    for kind, options in (
        ("PNG", {}),
        ("BMP", {}),
        *(("TIFF", {"compression": c} if c else {}) for c in (None, "group3", "group4", "packbits")),
    ):
        yield Case(
            f"Pillow {kind} 1 {options}",
            saved(PIL.Image.fromarray(bits), kind, **options),
            bits[..., None] * np.uint8(255),
        )
    lzw = saved(PIL.Image.fromarray(bits), "TIFF", compression="tiff_lzw")
    yield Case("Pillow TIFF 1 tiff_lzw", lzw, None)
    for colours in (2, 4, 16, 256):
        palette = PIL.Image.fromarray(RGB).quantize(colours)
        rgb = np.asarray(palette.convert("RGB"))
        for kind, options in (
            ("PNG", {}),
            ("PNG", {"optimize": True}),
            ("BMP", {}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
        ):
            yield Case(f"Pillow {kind} P {colours} {options}", saved(palette, kind, **options), rgb)
        clear = np.where(np.asarray(palette) == 1, 0, 255).astype(np.uint8)[..., None]
        yield Case(f"Pillow PNG P {colours} transparent", saved(palette, "PNG", transparency=1), rgb, clear)
    for array in (grey, RGB, rgba):
        # Pillow writes alpha into bytes that the format calls reserved, and reads it as RGB.
        yield Case(f"Pillow BMP {array.shape[-1]}", saved(pillow_image(array), "BMP"), array[..., :3])
    deep = PIL.Image.fromarray(RGB_16[..., 1])
    for kind in ("PNG", "TIFF"):
        yield Case(f"Pillow {kind} I;16", saved(deep, kind), RGB_16[..., 1:2])
    for mode in ("CMYK", "LAB", "YCbCr", "I", "F", "HSV"):
        image = PIL.Image.fromarray(RGB).convert("L" if mode in "IF" else "RGB").convert(mode)
        for kind in ("TIFF", "JPEG", "PNG"):
            try:
                encoded = saved(image, kind)
            except OSError:  # Pillow does not write this mode so.
                continue
            pixels, tolerance = (RGB, 6) if (mode, kind) == ("YCbCr", "JPEG") else (None, 0)
            if kind == "PNG" and mode == "I":
                pixels = np.asarray(image).astype(np.uint16)[..., None]
            yield Case(f"Pillow {kind} {mode}", encoded, pixels, None, tolerance)
    for compression in ("jpeg", "zstd", "lzma", "webp"):
        for mode in ("L", "RGB"):
            try:
                encoded = saved(pillow_image(arrays[mode][0]), "TIFF", compression=compression)
            except (OSError, ValueError):
                continue
            lossy = compression in ("jpeg", "webp")
            yield Case(f"Pillow TIFF {mode} {compression}", encoded, arrays[mode][0], None, 12 if lossy else 0)
    for kind in ("GIF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA", "PCX", "DDS", "PDF", "EPS", "SGI", "MSP"):
        image = PIL.Image.fromarray(bits) if kind == "MSP" else PIL.Image.fromarray(RGB)
        yield Case(f"Pillow {kind}", saved(image, kind), None)
    inverse = [PIL.Image.fromarray(255 - RGB)]
    for kind in ("PNG", "WEBP", "TIFF"):
        frames = saved(PIL.Image.fromarray(RGB), kind, save_all=True, append_images=inverse)
        yield Case(f"Pillow {kind} of two frames", frames, None)
    yield Case("Pillow MPO", saved(PIL.Image.fromarray(RGB), "MPO", save_all=True, append_images=inverse), RGB, None, 6)


def opencv_cases():
    """Yields what OpenCV writes."""
    for dtype, channels in itertools.product((np.uint8, np.uint16), (1, 3, 4)):
        colours = RGB if dtype == np.uint8 else RGB_16
        alpha = ALPHA.astype(dtype) * (1 if dtype == np.uint8 else 257) if channels == 4 else None
        pixels = colours[..., 1:2] if channels == 1 else colours
        whole = pixels if alpha is None else np.concatenate([pixels, alpha], axis=-1)
        bgr = whole[..., [2, 1, 0, 3][:channels]] if channels > 1 else whole
        variants = [(".png", ())]
        variants += [(".tiff", (cv2.IMWRITE_TIFF_COMPRESSION, value)) for value in (1, 5, 8, 32946)]
        if dtype == np.uint8:
            variants += [(".bmp", ()), (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101))]
            variants += [(".jpg", (cv2.IMWRITE_JPEG_QUALITY, 95))] if channels < 4 else []
        for extension, options in variants:
            encoded = cv2.imencode(extension, np.ascontiguousarray(bgr), options)[1].tobytes()
            wanted = np.broadcast_to(pixels, RGB.shape) if extension == ".webp" else pixels
            tolerance = 6 if extension == ".jpg" else 0
            yield Case(f"OpenCV {extension} {dtype.__name__} {channels} {options}", encoded, wanted, alpha, tolerance)
    for extension, dtype in (
        (".tiff", np.float32),
        (".tiff", np.int16),
        (".tiff", np.int32),
        (".tiff", np.int8),
        (".pfm", np.float32),
        (".hdr", np.float32),
    ):
        yield Case(
            f"OpenCV {extension} {dtype.__name__}", cv2.imencode(extension, (RGB // 2).astype(dtype))[1].tobytes(), None
        )
    for extension in (".ppm", ".jp2", ".avif", ".gif", ".ras"):
        yield Case(f"OpenCV {extension}", cv2.imencode(extension, RGB)[1].tobytes(), None)


def tiff(array, **options):
    """Returns the bytes of a TIFF by tifffile."""
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


def tifffile_cases():
    """Yields what tifffile writes."""
    layouts = [{}, {"tile": (16, 16)}, {"rowsperstrip": 7}, {"byteorder": ">"}, {"bigtiff": True}]
    layouts += [{"compression": c} for c in ("zlib", "lzw", "packbits", "zstd", "lzma")]
    layouts += [{"compression": c, "predictor": True} for c in ("zlib", "lzw")]
    for dtype, layout in itertools.product((np.uint8, np.uint16), layouts):
        colours = RGB if dtype == np.uint8 else RGB_16
        white = np.iinfo(dtype).max
        alpha = ALPHA.astype(dtype) * (1 if dtype == np.uint8 else 257)
        grey = colours[..., 1:2]
        name = f"tifffile {dtype.__name__} {layout}"
        yield Case(f"{name} grey", tiff(grey[..., 0], photometric="minisblack", **layout), grey)
        yield Case(f"{name} white is zero", tiff(white - grey[..., 0], photometric="miniswhite", **layout), grey)
        yield Case(f"{name} RGB", tiff(colours, photometric="rgb", **layout), colours)
        planes = np.moveaxis(colours, -1, 0)
        yield Case(f"{name} planes", tiff(planes, photometric="rgb", planarconfig="separate", **layout), colours)
        whole = np.concatenate([colours, alpha], axis=-1)
        yield Case(
            f"{name} alpha", tiff(whole, photometric="rgb", extrasamples=["unassalpha"], **layout), colours, alpha
        )
        yield Case(f"{name} spare", tiff(whole, photometric="rgb", extrasamples=["unspecified"], **layout), colours)
        product = np.round(colours.astype(float) * alpha / white).astype(dtype)
        restored = np.minimum(np.round(product.astype(float) * white / alpha), white).astype(dtype)
        whole = np.concatenate([product, alpha], axis=-1)
        yield Case(
            f"{name} premultiplied",
            tiff(whole, photometric="rgb", extrasamples=["assocalpha"], **layout),
            restored,
            alpha,
        )
    for dtype, orientation in itertools.product((np.uint8, np.uint16), range(1, 9)):
        colours = RGB if dtype == np.uint8 else RGB_16
        for pixels in (colours, colours[..., 1:2]):
            array = stored(pixels, orientation)
            array, photometric = (array, "rgb") if array.shape[-1] == 3 else (array[..., 0], "minisblack")
            encoded = tiff(array, photometric=photometric, extratags=[(274, 3, 1, orientation)])
            yield Case(f"tifffile {dtype.__name__} {photometric} orientation {orientation}", encoded, pixels)
    for dtype in (np.int8, np.int16, np.uint32, np.float16, np.float32, np.float64):
        yield Case(f"tifffile {dtype.__name__}", tiff((RGB // 2).astype(dtype), photometric="rgb"), None)
    yield Case(
        "tifffile bits", tiff(RGB[..., 1] > 127, photometric="minisblack"), (RGB[..., 1:2] > 127) * np.uint8(255)
    )
    yield Case("tifffile CMYK", tiff(np.concatenate([RGB, ALPHA], axis=-1), photometric="separated"), None)
    yield Case("tifffile LAB", tiff(RGB, photometric="cielab"), None)
    yield Case("tifffile two pages", tiff(np.stack([RGB, RGB]), photometric="rgb"), None)
    yield Case(
        "tifffile CFA",
        tiff(RGB[..., 1], photometric="cfa", extratags=[(33421, 3, 2, (2, 2)), (33422, 1, 4, b"\0\1\1\2")]),
        None,
    )
    yield Case("12 bits", bad_files.encoded("f02_grey12.tif"), None)


def png_cases():
    """Yields PNGs of every depth and colour type, written by the specification, with and without tRNS."""
    rng = np.random.default_rng(0)
    for colour_type, channels, depths in ((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (4, 2, (8, 16)), (6, 4, (8, 16))):
        for depth, with_key in itertools.product(depths, (False, True)):
            if with_key and colour_type > 2:
                continue
            top = 2**depth - 1
            samples = rng.integers(0, min(top, 20) + 1, (32, 48, channels))
            key = samples[3, 4]
            bits = (samples.reshape(32, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
            rows = b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in bits.reshape(32, -1))
            chunks = [(b"tRNS", key.astype(">u2").tobytes())] if with_key else []
            encoded = pictures.png(48, 32, depth, colour_type, rows, *chunks)
            dtype = np.uint16 if depth == 16 else np.uint8
            values = (samples * (1 if depth >= 8 else 255 // top)).astype(dtype)
            colours = 1 if channels < 3 else 3
            alpha = values[..., colours:] if channels in (2, 4) else None
            if with_key:
                alpha = np.where((samples == key).all(axis=-1, keepdims=True), 0, np.iinfo(dtype).max).astype(dtype)
            yield Case(f"PNG type {colour_type} depth {depth} key {with_key}", encoded, values[..., :colours], alpha)
