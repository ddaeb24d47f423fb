"""The tiny config of the tests as an experiment file, for runs in processes of their own."""

from tests import runs


def get_config():
    """Returns the config of `runs.tiny`."""
    return runs.tiny()
