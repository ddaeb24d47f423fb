"""Changes files at random and reads them: `python tests/fuzz_reading.py SECONDS SEED FOLDER`, from the root directory.

Anything but a picture or a `UserError` of one line is a finding, as are more than 1 GB of memory and 10 seconds. The
folder keeps the files of all findings, and the last file, in case the process dies.
"""

import contextlib
import faulthandler
import pathlib
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import zlib

import file_cases
from pconv_jax import errors
from pconv_jax.inpainting import photograph, photograph_files
from pconv_jax.reading import images, mask_images

MAX_PIXELS = 200_000_000  # The default of `inpaint`.
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)


def changed(rng, encoded, other):
    """Returns the bytes of a file with one to four random changes, in places another file's."""
    content = bytearray(encoded)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(content), rng.choice((64, 400, 10**9)))) if content else 0
        kind = rng.randrange(8)
        if kind == 0:
            content[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            number = rng.choice(_NUMBERS)
            size = rng.choice([size for size in (1, 2, 4) if number < 256**size])
            content[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))
        elif kind == 2:
            del content[at : at + rng.choice((1, 2, 16, 1000))]
        elif kind == 3:
            content[at:at] = content[at : at + rng.choice((1, 12, 200))]
        elif kind == 4:
            content[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif kind == 5:
            start = rng.randrange(len(other))
            content[at : at + 32] = other[start : start + 32]
        elif kind == 6:
            del content[at:]
        else:
            content[at : at + 4] = rng.randbytes(4)
    return with_checksums(bytes(content)) if rng.random() < 0.7 else bytes(content)


def with_checksums(encoded):
    """Returns a PNG with right checksums, so that changes reach the decoder; other files as they are."""
    if not encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return encoded
    content, at = bytearray(encoded), 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            break
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return bytes(content)


def use(path, encoded):
    """Reads a file as a photograph and as a mask, and writes it in every format; returns what came of it."""
    path.write_bytes(encoded)
    try:
        photo = photograph.read(str(path), MAX_PIXELS)
    except errors.UserError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"the message has several lines: {error}") from error
        return "refused"
    if photo.pixels.size < 10**6:
        with contextlib.suppress(errors.UserError):
            mask_images.hole(images.Image(photo.pixels, photo.alpha), "white_hole")
        for extension in photograph_files.WRITTEN:
            try:
                photograph_files.losses(photo, extension)
                written = photograph_files.encode(photo, extension)
            except errors.UserError:
                continue
            images.decode(written)
    return "read"


def main(seconds, seed, folder):
    """Fuzzes for a time and returns the number of findings."""
    folder = pathlib.Path(folder)
    rng, corpus = random.Random(seed), [case.encoded for case in file_cases.cases()]
    corpus = [encoded for encoded in corpus if len(encoded) < 20_000]
    counts, started, slowest, findings, files = {"read": 0, "refused": 0}, time.monotonic(), 0.0, 0, 0
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "file"
        while time.monotonic() - started < seconds:
            encoded = changed(rng, rng.choice(corpus), rng.choice(corpus))
            (folder / "last").write_bytes(encoded)
            before, peak = time.process_time(), _memory()
            faulthandler.dump_traceback_later(60, exit=True)
            try:
                counts[use(path, encoded)] += 1
            except Exception:
                findings += 1
                (folder / f"{seed}_{findings}").write_bytes(encoded)
                traceback.print_exc()
            faulthandler.cancel_dump_traceback_later()
            took = time.process_time() - before
            if took > max(slowest, 2) or _memory() > max(peak, 0.5):
                print(f"{took:.1f} s, {_memory():.2f} GB: {folder / f'{seed}_slow_{files}'}", flush=True)
                (folder / f"{seed}_slow_{files}").write_bytes(encoded)
            slowest, files = max(slowest, took), files + 1
    print(f"{files} files {counts}, {findings} findings, slowest {slowest:.1f} s, at most {_memory():.2f} GB")
    return findings + (slowest > 10) + (__name__ == "__main__" and _memory() > 1)


def _memory():
    """Returns the most memory in GB that the process has had; in a test that includes all tests before."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(bool(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
