"""Recognises the format of an image by its first bytes, and names formats that are not read."""

from pconv_jax import errors

NEEDS = "needs JPEG, PNG, WebP, TIFF or BMP"

_READ = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
)
_NAMED = (
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop file"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript file"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"gimp xcf", "GIMP file"),
    (b"\0\0\1\0", "icon"),
    (b"FUJIFILM", "raw photograph (RAF)"),
    (b"IIRO", "raw photograph (ORF)"),
    (b"IIU\0", "raw photograph (RW2)"),
    (b"PK\3\4", "zip file"),
    (b"\x1f\x8b", "gzip file"),
    (b"\x93NUMPY", "NumPy array"),
    (b"\x89HDF", "HDF5 file"),
    (b"version https://git-lfs", "Git LFS pointer, not the file itself (git lfs pull)"),
)
_ISO_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "raw photograph (CR3)", b"heic": "HEIC", b"heix": "HEIC"}
_ISO_BRANDS |= {b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}


def recognise(encoded: bytes) -> str:
    """Returns the format of an image: "jpeg", "png", "webp", "tiff" or "bmp", whatever the name of its file.

    Raises:
      UserError: it is of another format; the message names the format where it is known.
    """
    for magic, kind in _READ:
        if encoded.startswith(magic):
            return kind
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "webp"
    if not encoded:
        raise errors.UserError("is empty")
    name = _name(encoded)
    if name is None:
        raise errors.UserError(f"is not an image of a known format; {NEEDS}")
    article = "an" if name[0] in "AEIOaeio" else "a"
    raise errors.UserError(f"is {article} {name}; {NEEDS}: convert it first")


def _name(encoded):
    """Returns the name of a format that is known and not read, or None."""
    if encoded[4:8] == b"ftyp":
        return _ISO_BRANDS.get(encoded[8:12], "video")
    if encoded[:1] == b"P" and encoded[1:2] in b"1234567Ff" and encoded[2:3].isspace():
        return "PNM (PBM, PGM, PPM, PAM or PFM)"
    if encoded.lstrip()[:200].lower().startswith((b"<!doctype html", b"<html")):
        return "web page"
    if b"<svg" in encoded[:1000]:
        return "SVG"
    return next((name for magic, name in _NAMED if encoded.startswith(magic)), None)
