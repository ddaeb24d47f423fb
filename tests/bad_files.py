"""The small files in tests/bad_inputs: one picture (`upright.png`, 48 x 32) as real programs stored it."""

import pathlib

from pconv_jax.reading import images

DIRECTORY = pathlib.Path(__file__).parent / "bad_inputs"


def encoded(name):
    """Returns the bytes of a file."""
    return (DIRECTORY / name).read_bytes()


def pixels(name):
    """Returns the pixels that a file is decoded to."""
    return images.decode(encoded(name)).pixels
