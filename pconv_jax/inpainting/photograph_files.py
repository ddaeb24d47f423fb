"""Encodes photographs as files: pixels exactly, and as much of the metadata as the format holds."""

import io
import struct

import imagecodecs
import numpy as np
import PIL.Image

from pconv_jax import errors
from pconv_jax.inpainting import photograph
from pconv_jax.reading import exif, png

LOSSLESS = (".png", ".webp", ".tif", ".tiff")
JPEG = (".jpg", ".jpeg")
WRITTEN = (*LOSSLESS, *JPEG)

_MAX_SIDE = {".webp": 16383, ".jpg": 65535, ".jpeg": 65535}
_MAX_SEGMENT = 65533  # Bytes in a segment of a JPEG.
_XMP_IN_SEGMENT = _MAX_SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")
_FAST_PNG = {"level": 1, "strategy": imagecodecs.PNG.STRATEGY.RLE, "filter": imagecodecs.PNG.FILTER.UP}
_SRGB_GAMMA = 45455  # In gAMA: 100,000 / 2.2.
_SRGB_POINTS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # In cHRM: white, red, green, blue.


def check(photo: photograph.Photograph, extension: str):
    """Checks that a format can hold the pixels of a photograph.

    Args:
      photo: the photograph.
      extension: extension of the file to write, one of `WRITTEN`.

    Raises:
      UserError: the format has fewer bits, no transparency, or smaller sides.
    """
    if photo.white > 255 and extension != ".png":
        raise errors.UserError(f"has 16 bits per channel, which {extension} is not written with: use .png")
    if photo.alpha is not None and extension in JPEG and photo.alpha.min() < photo.white:
        raise errors.UserError(f"has transparent pixels, which {extension} does not hold: use {', '.join(LOSSLESS)}")
    longest = _MAX_SIDE.get(extension)
    if longest and max(photo.pixels.shape) > longest:
        raise errors.UserError(f"is {photo.size}; {extension} has at most {longest} pixels per side: use .png or .tif")


def lossy(extension: str) -> list[str]:
    """Returns a warning about a format that changes valid pixels, or none."""
    if extension in LOSSLESS:
        return []
    return [f"{extension} is lossy, valid pixels change slightly: {', '.join(LOSSLESS)} keep them"]


def losses(photo: photograph.Photograph, extension: str) -> list[str]:
    """Returns warnings about metadata of a photograph that a format cannot hold.

    Args:
      photo: the photograph.
      extension: extension of the file to write, one of `WRITTEN`.
    """
    warnings = []
    if extension != ".png" and photo.icc is None and not _is_srgb(photo.colour):
        kinds = ", ".join(kind.decode() for kind, _ in photo.colour)
        warnings.append(f"the colours are described by {kinds}, which only .png holds: they may look different")
    if _profile(photo, extension) != photo.icc:
        warnings.append(f"the grey profile was left out, as {extension} is written as RGB: it may look different")
    if extension in JPEG:
        warnings += exif.kept(photo.exif, _MAX_SEGMENT)[1]
        if len(photo.xmp) > _XMP_IN_SEGMENT:
            warnings.append(f"the XMP was left out: {extension} has room for {_XMP_IN_SEGMENT} bytes of it")
    return warnings


def encode(photo: photograph.Photograph, extension: str, *, fast: bool = False) -> bytes:
    """Returns the bytes of a file: lossless for `LOSSLESS`, else a JPEG of quality 95 without chroma subsampling.

    WebP stores grey as RGB of the same values.

    Args:
      photo: the photograph.
      extension: extension of the file, one of `WRITTEN`.
      fast: whether a PNG may be larger, and take a fraction of the time.

    Raises:
      UserError: the format cannot hold the pixels (`check`).
    """
    check(photo, extension)
    planes = [photo.pixels] if photo.alpha is None or extension in JPEG else [photo.pixels, photo.alpha]
    array = np.ascontiguousarray(np.concatenate(planes, axis=-1))
    if extension == ".png":
        return _png(photo, array, fast)
    if extension in (".tif", ".tiff"):
        return _tiff(photo, array)
    image = PIL.Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    options = {"icc_profile": _profile(photo, extension), "exif": photo.exif, "xmp": photo.xmp}
    if extension == ".webp":  # "exact" keeps the colours under transparency.
        options |= {"format": "WEBP", "lossless": True, "exact": True}
    else:
        options |= {"format": "JPEG", "quality": 95, "subsampling": 0, "exif": exif.kept(photo.exif, _MAX_SEGMENT)[0]}
        options |= {"dpi": tuple(map(round, photo.dpi))} if photo.dpi else {}
        options["xmp"] = photo.xmp if len(photo.xmp) <= _XMP_IN_SEGMENT else b""
    file = io.BytesIO()
    image.save(file, **{name: value for name, value in options.items() if value})
    return file.getvalue()


def _profile(photo, extension):
    """Returns the ICC profile to write: none where grey with a profile for grey is written as RGB."""
    if photo.icc is None or (photo.icc[16:20] == b"GRAY" and (extension == ".webp" or photo.pixels.shape[-1] == 3)):
        return None
    return photo.icc


def _is_srgb(colour):
    """Returns whether a PNG's chunks describe sRGB, which a file without them is taken for."""
    chunks = dict(colour)
    if b"sRGB" in chunks or not chunks:
        return b"cICP" not in chunks
    gamma = struct.unpack(">I", chunks.get(b"gAMA", struct.pack(">I", _SRGB_GAMMA)).rjust(4, b"\0")[:4])[0]
    points = struct.unpack(">8I", chunks.get(b"cHRM", struct.pack(">8I", *_SRGB_POINTS)).ljust(32, b"\0")[:32])
    near = all(abs(one - other) <= 200 for one, other in zip(points, _SRGB_POINTS, strict=True))
    return b"cICP" not in chunks and abs(gamma - _SRGB_GAMMA) <= 500 and near


def _png(photo, array, fast):
    chunks = [(kind, content) for kind, content in photo.colour if kind != b"sRGB" or photo.icc is None]
    icc = _profile(photo, ".png")
    chunks += [png.profile_chunk(icc)] if icc else []
    chunks += [png.resolution_chunk(photo.dpi)] if photo.dpi else []
    chunks += [(b"eXIf", photo.exif.removeprefix(exif.PREFIX))] if photo.exif else []
    chunks += [png.xmp_chunk(photo.xmp)] if photo.xmp else []
    options = _FAST_PNG if fast else {}
    encoded = imagecodecs.png_encode(array[..., 0] if array.shape[-1] == 1 else array, **options)
    return png.with_chunks(encoded, chunks)


def _tiff(photo, array):
    """Returns an uncompressed TIFF, whose main directory is also that of the EXIF block."""
    order, directories, _ = exif.described(photo.exif) if photo.exif else ("<", {"main": {}}, 0)
    height, width, samples = array.shape
    colours = photo.pixels.shape[-1]

    def shorts(*values):
        return exif.Entry(3, len(values), struct.pack(f"{order}{len(values)}H", *values))

    def long(value):
        return exif.Entry(4, 1, struct.pack(f"{order}I", value))

    tags = {256: long(width), 257: long(height), 258: shorts(*[8] * samples), 259: shorts(1)}
    tags |= {262: shorts(1 if colours == 1 else 2), 273: long(8), 277: shorts(samples), 278: long(height)}
    tags |= {279: long(array.nbytes), 284: shorts(1)}
    if samples > colours:
        tags[338] = shorts(2)  # Alpha that the colours are not multiplied by.
    if photo.dpi:
        for tag, value in zip((exif.X_RESOLUTION, exif.Y_RESOLUTION), photo.dpi, strict=True):
            tags[tag] = exif.Entry(5, 1, struct.pack(f"{order}II", round(value * 1000), 1000))
        tags[exif.RESOLUTION_UNIT] = shorts(2)
    icc = _profile(photo, ".tif")
    for tag, content in ((34675, icc), (700, photo.xmp)):
        if content:
            tags[tag] = exif.Entry(7 if tag == 34675 else 1, len(content), content)
    directories["main"] = {**directories["main"], **tags}
    return exif.serialise(order, directories, array.tobytes())
