"""The exception for mistakes of a user, as opposed to bugs of the program."""


class UserError(ValueError):
    """A mistake in the input that the user can correct, e.g. in a flag, a config, a file or the shape of an image.

    The message states what was found, what is needed and what to do. Commands print it as one line without a traceback
    (`pconv_jax.command_line.run`). Every other exception is a bug and keeps its traceback, except for errors of the
    operating system, such as a full disk.
    """
