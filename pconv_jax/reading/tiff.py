"""TIFF files: grey, RGB or palette with 1, 8 or 16 bits per channel; every other kind is refused by name.

tifffile and imagecodecs decode the numbers as they are stored; what they mean is decided here from the tags alone.
"""

import io
import logging

import numpy as np
import PIL.TiffImagePlugin
import tifffile

from pconv_jax import errors
from pconv_jax.reading import exif, headers, jpeg

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3}  # Samples without extra ones.
_LZW, _JPEG = 5, 7
_WITH_PREDICTOR = (_LZW, 8, 32946, 34925, 50000)  # LZW, deflate (two numbers), LZMA, zstd.
# None, CCITT, LZW, JPEG, deflate, PackBits, LZMA, zstd. The others hold images with sizes of their own.
_COMPRESSIONS = (1, 2, 3, 4, 5, _JPEG, 8, 32946, 32773, 34925, 50000)
_PLANES_APART = 2
_SPARE, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2
_REDUCED = 1  # Bit of NewSubfileType: a preview of another page.
_UNSIGNED = 1
_PHOTOMETRIC, _ORIENTATION, _SUB_IFDS, _ICC, _XMP, _DNG_VERSION = 262, 274, 330, 34675, 700, 50706
_COLORIMETRY = (301, 318, 319)  # TransferFunction, WhitePoint, PrimaryChromaticities.
_MAX_PAGES = 64
# No compression makes more than so many bytes of one, beside the first 128 MiB (a blank page of black and white).
_MAX_RATIO, _SLACK = 2000, 2**27

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # It logs every oddity of a file as an error.


def _decode_lzw(data, out=None):
    """Returns the inflated bytes of a strip or tile, by Pillow's libtiff.

    imagecodecs' own decoder ends the process on some damaged data.

    Args:
      data: the LZW stream.
      out: number of bytes to return, as tifffile gives it.
    """

    def long(value):
        return exif.Entry(4, 1, value.to_bytes(4, "little"))

    tags = {256: out, 257: 1, 258: 8, 259: _LZW, 262: _MIN_IS_BLACK, 273: 8, 277: 1, 278: 1, 279: len(data)}
    row = exif.serialise("<", {"main": {tag: long(value) for tag, value in tags.items()}}, bytes(data))
    with PIL.TiffImagePlugin.TiffImageFile(io.BytesIO(row)) as image:
        return image.tobytes()


# tifffile offers no other place for a decoder of one's own.
tifffile.TIFF.DECOMPRESSORS._codecs[_LZW] = _decode_lzw


def header(encoded: bytes) -> headers.Header:
    """Returns the size and the orientation; `details` holds tifffile's page.

    Raises:
      UserError: it has several pages, or is of a kind that is not read.
    """
    page = _page(encoded)
    _check(page)
    _check_segments(encoded, page)
    if page.compression == _JPEG:
        _check_jpegs(encoded, page)
    tag = page.tags.get(_ORIENTATION)
    orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
    return headers.Header(int(page.imagewidth), int(page.imagelength), orientation, page)


def decode(encoded: bytes, head: headers.Header, channels: int | None = None) -> headers.Samples:
    """Decodes the pixels: white is the maximum, palettes become RGB, alpha is not premultiplied.

    Args:
      encoded: the bytes of the file.
      head: its header.
      channels: not used.

    Raises:
      UserError: the compression is not read.
      Exception: it cannot be decoded.
    """
    del channels
    page, warnings = head.details, []
    size = head.width * head.height * page.samplesperpixel * (2 if page.bitspersample == 16 else 1)
    if size > _MAX_RATIO * len(encoded) + _SLACK:
        raise errors.UserError(f"is damaged: its tags claim {size} bytes of pixels, and it has {len(encoded)} bytes")
    array = _stored(page)
    damage = _jpeg_damage(encoded, page) if page.compression == _JPEG else ""
    if page.bitspersample == 1:
        array = array.astype(np.uint8) * (1 if page.photometric == _PALETTE else 255)
    white = np.iinfo(array.dtype).max
    if page.photometric == _MIN_IS_WHITE:
        array[..., 0] = white - array[..., 0]
    if page.photometric == _PALETTE:
        table = np.asarray(page.colormap).T  # 16 bits per entry; old programs wrote 8.
        array = (table >> 8 if table.max() > 255 else table).astype(np.uint8)[array[..., 0]]
    colours = 3 if page.photometric == _PALETTE else _COLOURS[page.photometric]
    kinds = _extra_samples(page)
    if kinds and page.photometric != _PALETTE:
        image, extra = array[..., :colours], array[..., colours:]
        alpha = next((index for index, kind in enumerate(kinds) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)
        if len(kinds) > 1 or alpha is None:
            warnings.append("has extra channels that are not transparency: they are left out")
        if alpha is None:
            array = image
        else:
            alpha_plane = extra[..., alpha : alpha + 1]
            if kinds[alpha] == _ASSOCIATED:
                image = _unassociated(image, alpha_plane)
            array = np.concatenate([image, alpha_plane], axis=-1)
    return headers.Samples(array, damage, tuple(warnings))


def blocks(encoded: bytes) -> headers.Blocks:
    """Returns the metadata of a file whose header was read. The file itself is the EXIF block."""
    page = _page(encoded)
    icc, xmp = (page.tags.get(tag) for tag in (_ICC, _XMP))
    warnings = []
    if icc is None and any(tag in page.tags for tag in _COLORIMETRY):
        warnings.append("describes its colours by TIFF tags, which are not kept: they may look different")
    return headers.Blocks(
        bytes(icc.value) if icc is not None else None,
        encoded if page.index == 0 and encoded[2:4] in (b"*\0", b"\0*") else b"",
        bytes(xmp.value) if xmp is not None and isinstance(xmp.value, bytes) else b"",
        exif.resolution(encoded),
        warnings=tuple(warnings),
    )


def _page(encoded):
    """Returns the one page that is no preview of another."""
    file = tifffile.TiffFile(io.BytesIO(encoded))
    if _DNG_VERSION in file.pages.first.tags:
        raise errors.UserError("is a raw photograph (DNG); needs a developed one: convert it first")
    pages = []
    for index, page in enumerate(file.pages):
        if index >= _MAX_PAGES:
            raise errors.UserError(f"has more than {_MAX_PAGES} pages; needs one: save the wanted one by itself")
        if not page.keyframe.subfiletype & _REDUCED or index == 0:
            pages.append(page)
    if len(pages) > 1 and pages[0].keyframe.subfiletype & _REDUCED:
        del pages[0]
    if len(pages) > 1:
        raise errors.UserError(f"has {len(pages)} frames; needs one: save the wanted one by itself")
    page = file.pages[pages[0].index]
    if page.subfiletype & _REDUCED and _SUB_IFDS in page.tags:
        raise errors.UserError(
            "is a preview, with the image itself inside as raw photographs have it: convert it first"
        )
    return page


def _check(page):
    """Refuses every kind of page whose numbers are not known to be grey, RGB or palette entries."""
    convert = "convert it first"
    if _PHOTOMETRIC not in page.tags:
        raise errors.UserError("is damaged: a TIFF that does not say what its numbers mean (PhotometricInterpretation)")
    if page.photometric not in _COLOURS:
        kind = getattr(page.photometric, "name", page.photometric)
        kind = {"SEPARATED": "CMYK", "CIELAB": "LAB"}.get(kind, kind)
        raise errors.UserError(f"is {kind}; needs grey or RGB: {convert}")
    bits, kinds = page.tags.get(258), page.tags.get(339)
    bits = bits.value if bits is not None else 1
    if isinstance(bits, tuple) and len(set(bits)) > 1:
        raise errors.UserError(f"has channels of different depths {bits}; needs 8 or 16 bits: {convert}")
    bits = bits[0] if isinstance(bits, tuple) else bits
    kind = np.ravel(kinds.value)[0] if kinds is not None else _UNSIGNED
    if kind != _UNSIGNED:
        name = {2: "signed", 3: "floating point"}.get(int(kind), f"sample format {kind}")
        raise errors.UserError(f"is {bits} bits {name}; needs 8 or 16 bits unsigned: {convert}")
    depths = {_PALETTE: (1, 2, 4, 8), _MIN_IS_WHITE: (1, 8, 16), _MIN_IS_BLACK: (1, 8, 16)}
    if bits not in depths.get(int(page.photometric), (8, 16)):
        raise errors.UserError(f"is {bits} bits per channel; needs 8 or 16: {convert}")
    if page.photometric == _YCBCR and page.compression != _JPEG:
        raise errors.UserError(f"is YCbCr without JPEG compression; needs grey or RGB: {convert}")
    if page.compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        raise errors.UserError(f"is a TIFF with {name} compression, which is not read: {convert}")
    if page.predictor != 1 and page.compression not in _WITH_PREDICTOR:  # Readers disagree on what the numbers mean.
        raise errors.UserError(f"is a TIFF with a predictor and without compression to go with it: {convert}")
    if page.photometric == _PALETTE and page.colormap is None:
        raise errors.UserError("is damaged: a TIFF of palette entries without a palette (ColorMap)")
    if page.compression == _LZW and bits < 8:  # Its inflated size, which the decoder needs, is not known.
        raise errors.UserError(f"is {bits} bits per channel with LZW compression, which is not read: {convert}")
    if page.samplesperpixel < _COLOURS[page.photometric]:
        raise errors.UserError(f"is damaged: {page.samplesperpixel} channels where colour needs 3")
    if (page.imagedepth or 1) > 1:
        raise errors.UserError(f"is a volume of {page.imagedepth} slices; needs one image: {convert}")


def _check_segments(encoded, page):
    """Refuses a file that lacks strips or tiles, or a part of them: tifffile fills missing ones with zeros."""
    planes = page.samplesperpixel if page.planarconfig == _PLANES_APART else 1
    if page.is_tiled:
        count = -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength) * planes
    else:
        count = -(-page.imagelength // page.rowsperstrip) * planes
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(segments) != count or any(not size or offset + size > len(encoded) for offset, size in segments):
        raise errors.UserError("is damaged, or cut off: a TIFF that lacks some of its pixels")
    bits = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample
    if page.compression == 1 and sum(size for _, size in segments) < bits // 8:
        raise errors.UserError("is damaged, or cut off: a TIFF that lacks some of its pixels")


def _check_jpegs(encoded, page):
    """Refuses JPEGs inside a TIFF that claim to be larger than their strip or tile."""
    size = page.tilewidth * page.tilelength if page.is_tiled else page.imagewidth * page.rowsperstrip
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        head = jpeg.header(encoded[offset : offset + count])
        if head.width * head.height > 4 * size + 2**16:
            raise errors.UserError(f"is damaged: a JPEG inside it claims to be {head.width}x{head.height}")


def _jpeg_damage(encoded, page):
    """Returns a sentence if JPEGs inside a TIFF lack data, which tifffile's decoder fills; else an empty string."""
    tables = page.jpegtables
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        stream = encoded[offset : offset + count]
        if tables:
            stream = tables[:-2] + stream[2:]  # Without the end of the one and the start of the other.
        try:
            damage = jpeg.decode(stream, jpeg.header(stream)).damage
        except ValueError:  # tifffile's decoder reads more kinds.
            continue
        if damage:
            return "is a TIFF with damaged JPEG data: a part of it is displaced or grey"
    return ""


def _stored(page):
    """Returns the numbers of a page as `[H, W, C]`."""
    array = page.asarray(maxworkers=1)
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and page.planarconfig == _PLANES_APART and page.samplesperpixel > 1:
        array = np.moveaxis(array, 0, -1)
    if array.shape != (page.imagelength, page.imagewidth, page.samplesperpixel):
        raise errors.UserError(f"is damaged: {list(array.shape)} numbers where the tags give another shape")
    return np.array(array)  # A copy: the reader's may be read-only.


def _extra_samples(page):
    """Returns the kinds of the channels beyond the colours; a lone undeclared one is transparency, as in Pillow."""
    count = page.samplesperpixel - _COLOURS[page.photometric]
    declared = [int(kind) for kind in page.extrasamples][:count]
    if not declared and count == 1:
        return [_UNASSOCIATED]
    return declared + [_SPARE] * (count - len(declared))


def _unassociated(image, alpha):
    """Divides premultiplied colours by alpha; colours under alpha 0 are black."""
    white = np.iinfo(image.dtype).max
    quotient = image.astype(np.float64) * white / np.maximum(alpha, 1)
    return np.minimum(np.round(quotient), white).astype(image.dtype)
