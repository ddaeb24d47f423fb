"""Reads EXIF blocks, and rewrites them without what must not be passed on; kept values stay the same bytes.

EXIF is a TIFF structure: directories of entries (tag, type, count, value). Nothing here interprets values as text or
numbers but the orientation and the print resolution.
"""

import dataclasses
import struct

PREFIX = b"Exif\0\0"

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x112, 0x11A, 0x11B, 0x128
_EXIF_IFD, _GPS_IFD, _INTEROPERABILITY_IFD, _INTEROPERABILITY_INDEX = 0x8769, 0x8825, 0xA005, 0x0001
# Tags of the main directory that describe the photograph and not its file: description, maker, model, software, date,
# artist, copyright, and Windows' title, comment, author, keywords and subject.
_ABOUT = {0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x8298, *range(0x9C9B, 0x9CA0)}
# A maker's note may hold a preview of what is removed; width and height may be those before the rotation.
_NOT_KEPT = {0x927C, 0xA002, 0xA003}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}  # Bytes by type.
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # Little and big endian.
_MAX_ENTRIES = 1000  # More than any camera writes into a directory.


@dataclasses.dataclass(frozen=True)
class Entry:
    """One value of an EXIF directory.

    Attributes:
      kind: number of the type, a key of `_SIZES`.
      count: number of elements.
      value: the bytes of the elements, in the byte order of the block.
    """

    kind: int
    count: int
    value: bytes


def orientation(block: bytes) -> int:
    """Returns the orientation, 1 to 8, that an EXIF block gives; 1 if it gives none or cannot be read."""
    start = len(PREFIX) if block.startswith(PREFIX) else 0
    order = _ORDERS.get(block[start : start + 4])
    if order is None or len(block) < start + 8:
        return 1
    at = start + struct.unpack_from(f"{order}I", block, start + 4)[0]
    if at + 2 > len(block):
        return 1
    count = struct.unpack_from(f"{order}H", block, at)[0]
    # Training reads this number of every image, so the other entries are passed over.
    for tag, kind, _, value in struct.iter_unpack(f"{order}HHI4s", _whole(block[at + 2 : at + 2 + 12 * count])):
        if tag == ORIENTATION:
            number = _integer(order, Entry(kind, 1, value)) or 1
            return number if 1 <= number <= 8 else 1
    return 1


def resolution(block: bytes) -> tuple[float, float] | None:
    """Returns the print resolution `(x, y)` in pixels per inch that an EXIF block gives, or None."""
    order, entries, _ = _main(block)
    values = [_rational(order, entries.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    per_unit = {2: 1.0, 3: 2.54}.get(_integer(order, entries.get(RESOLUTION_UNIT)) or 2)
    if per_unit is None or None in values or min(values) <= 0:
        return None
    return values[0] * per_unit, values[1] * per_unit


def kept(block: bytes, max_bytes: int | None = None) -> tuple[bytes, list[str]]:
    """Rewrites an EXIF block with what describes the photograph: camera, settings, date, place, texts.

    Left out are the orientation, the thumbnail, maker's notes and what describes the file.

    Args:
      block: the EXIF block, with or without the prefix "Exif".
      max_bytes: largest size of the result; the largest values are left out until it fits. None: no limit.

    Returns:
      `(block, warnings)`: the new block with its prefix, empty if nothing is left; and sentences about values that
      were left out because they are damaged or too large.
    """
    order, directories, damaged = described(block)
    warnings = [f"{damaged} damaged EXIF values were left out"] if damaged else []
    result = _block(order, directories)
    too_large = 0
    while max_bytes is not None and len(result) > max_bytes:
        values = [(len(entry.value), name, tag) for name, d in directories.items() for tag, entry in d.items()]
        _, name, tag = max(values)
        del directories[name][tag]
        too_large += 1
        result = _block(order, directories)
    if too_large:
        warnings.append(f"{too_large} EXIF values were left out: the format has room for {max_bytes} bytes of EXIF")
    return result, warnings


def described(block: bytes) -> tuple[str, dict[str, dict[int, Entry]], int]:
    """Returns what describes the photograph in an EXIF block: `(byte order, directories, number of damaged values)`."""
    order, main, damaged = _main(block)
    directories = {"main": {tag: entry for tag, entry in main.items() if tag in _ABOUT}}
    for name, tag in (("exif", _EXIF_IFD), ("gps", _GPS_IFD)):
        entries, more = _directory(block, order, _integer(order, main.get(tag)))
        damaged += more
        directories[name] = {tag: entry for tag, entry in entries.items() if tag not in _NOT_KEPT}
    pointer = directories["exif"].pop(_INTEROPERABILITY_IFD, None)
    interoperability, _ = _directory(block, order, _integer(order, pointer))
    index = interoperability.get(_INTEROPERABILITY_INDEX)
    if index and index.value.startswith(b"R03"):  # The only place where cameras state Adobe RGB.
        directories["interoperability"] = {_INTEROPERABILITY_INDEX: index}
    return order, directories, damaged


def _block(order, directories):
    """Returns directories as an EXIF block with its prefix; empty if all of them are."""
    return PREFIX + serialise(order, directories) if any(directories.values()) else b""


def _whole(entries):
    """Returns the bytes without an entry that is cut off at the end."""
    return entries[: len(entries) // 12 * 12]


def _main(block):
    """Returns `(byte order, entries, number of damaged entries)` of the main directory."""
    start = len(PREFIX) if block.startswith(PREFIX) else 0
    order = _ORDERS.get(block[start : start + 4])
    if order is None or len(block) < start + 8:
        return "<", {}, int(bool(block))
    return (order, *_directory(block, order, struct.unpack_from(f"{order}I", block, start + 4)[0]))


def _directory(block, order, offset):
    """Returns `(entries by tag, number of damaged entries)` of the directory at an offset; none if it is None."""
    start = len(PREFIX) if block.startswith(PREFIX) else 0
    entries, damaged = {}, 0
    if offset is None:
        return entries, damaged
    if start + offset + 2 > len(block):
        return entries, 1
    (count,) = struct.unpack_from(f"{order}H", block, start + offset)
    for index in range(min(count, _MAX_ENTRIES)):
        at = start + offset + 2 + 12 * index
        if at + 12 > len(block):
            damaged += 1
            break
        tag, kind, number = struct.unpack_from(f"{order}HHI", block, at)
        size = _SIZES.get(kind, 0) * number
        if size > 4:
            at = start + struct.unpack_from(f"{order}I", block, at + 8)[0]
        else:
            at += 8
        if not size or at + size > len(block):
            damaged += 1
        else:
            entries.setdefault(tag, Entry(kind, number, block[at : at + size]))
    return entries, damaged


def _integer(order, entry):
    """Returns the first number of an entry of bytes, shorts or longs; None for others."""
    kind = entry and {1: "B", 3: "H", 4: "I", 13: "I"}.get(entry.kind)
    return struct.unpack_from(order + kind, entry.value)[0] if kind else None


def _rational(order, entry):
    """Returns the first fraction of an entry; None for other types and a denominator of zero."""
    if entry is None or entry.kind != 5:
        return None
    numerator, denominator = struct.unpack_from(f"{order}II", entry.value)
    return numerator / denominator if denominator else None


def serialise(order: str, directories: dict[str, dict[int, Entry]], before: bytes = b"") -> bytes:
    """Returns a TIFF structure of directories, which link to each other.

    Args:
      order: byte order of the values, "<" or ">".
      directories: entries by tag of "main", "exif", "gps" and "interoperability"; empty ones are left out.
      before: bytes that come between the header, 8 bytes, and the first directory.
    """
    links = {"main": (("exif", _EXIF_IFD), ("gps", _GPS_IFD)), "exif": (("interoperability", _INTEROPERABILITY_IFD),)}
    directories = {name: dict(entries) for name, entries in directories.items()}
    for name, targets in reversed(links.items()):  # The inner directory first: its link makes the outer one non-empty.
        for target, tag in targets:
            if directories.get(target):
                directories.setdefault(name, {})[tag] = Entry(4, 1, bytes(4))
    names = [name for name in ("main", "exif", "gps", "interoperability") if directories.get(name)]
    before += bytes(len(before) % 2)
    offsets, at = {}, 8 + len(before)
    for name in names:
        offsets[name] = at
        sizes = (len(entry.value) for entry in directories[name].values())
        at += 6 + sum(12 + (size + size % 2 if size > 4 else 0) for size in sizes)
    body = before
    for name in names:
        for target, tag in links.get(name, ()):
            if target in offsets:
                directories[name][tag] = Entry(4, 1, struct.pack(f"{order}I", offsets[target]))
        body += _serialise_directory(order, directories[name], offsets[name])
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", offsets["main"]) + body


def _serialise_directory(order, entries, offset):
    """Returns the bytes of one directory and its values, at an offset from the start of the block."""
    head, values = struct.pack(f"{order}H", len(entries)), b""
    start = offset + 6 + 12 * len(entries)
    for tag, entry in sorted(entries.items()):
        head += struct.pack(f"{order}HHI", tag, entry.kind, entry.count)
        if len(entry.value) > 4:
            head += struct.pack(f"{order}I", start + len(values))
            values += entry.value + bytes(len(entry.value) % 2)
        else:
            head += entry.value.ljust(4, b"\0")
    return head + bytes(4) + values
