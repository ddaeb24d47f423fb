"""Tests of `pconv_jax.errors`."""

import pytest

from pconv_jax import errors


def test_prefix_is_put_before_errors_of_users_alone():
    """The text of a user error gets the prefix and keeps its cause; other exceptions pass as they are."""
    with pytest.raises(errors.UserError, match=r"^a\.png: is no image$") as caught, errors.prefixed("a.png: "):
        raise errors.UserError("is no image")
    assert isinstance(caught.value.__cause__, errors.UserError)
    with pytest.raises(OSError, match=r"^full$"), errors.prefixed("a.png: "):
        raise OSError("full")
