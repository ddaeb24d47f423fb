"""The exception for mistakes of a user, as opposed to bugs of the program."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake in the input that the user can correct, e.g. in a flag, a config, a file or the shape of an image.

    The message states what was found, what is needed and what to do. Commands print it as one line without a traceback
    (`pconv_jax.command_line.run`). Every other exception is a bug and keeps its traceback, except for errors of the
    operating system, such as a full disk.
    """


@contextlib.contextmanager
def prefixed(prefix: str) -> Iterator[None]:
    """Puts a prefix before the text of a user error that the block raises, e.g. the name of the file it is about.

    Args:
      prefix: the prefix, with the colon or the space that is to follow it.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{prefix}{error}") from error
