"""The error that tells a user what to change, as opposed to a bug."""


class UserError(ValueError):
    """An input that a person can mend: a flag, a config, a file, a directory, the shape of an image.

    Its message says what was found, what is needed and what to do, in full sentences. Commands print it as one line
    without a traceback (`pconv_jax.command_line.run`); every other exception keeps its traceback.
    """
