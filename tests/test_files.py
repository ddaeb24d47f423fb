"""Files are read without waiting, and again when a disk or a network fails; every name can be printed."""

import errno
import os
import re

import pytest

from pconv_jax import errors
from pconv_jax.data import masks, sources
from pconv_jax.reading import files


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """Returns a function that makes reading of a file fail some times; it returns the path and the list of pauses."""
    pauses, path = [], tmp_path / "photo.png"
    path.write_bytes(b"content")
    monkeypatch.setattr(files.time, "sleep", pauses.append)

    def fail(number, times):
        left = [OSError(number, os.strerror(number), str(path))] * times

        def opened(*arguments, **options):
            if left:
                raise left.pop()
            return open(*arguments, **options)

        monkeypatch.setattr(files, "open", opened, raising=False)
        return str(path), pauses

    return fail


PASSING = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENOMEM]


@pytest.mark.parametrize("number", PASSING)
def test_a_read_error_that_passes_is_tried_again(failing, caplog, number):
    """Where a disk or a network works again 1 or 11 seconds later, the file is read, and the log has a line."""
    path, pauses = failing(number, 2)
    assert files.read(path) == b"content"
    assert pauses == [1, 10] and len(caplog.records) == 2
    assert f"{os.strerror(number)}; tried again in 10 s" in caplog.text


@pytest.mark.parametrize("number", PASSING)
def test_a_read_error_that_stays_is_no_damaged_file(failing, tmp_path, number):
    """The run stops: no image and no mask replaces one that cannot be read at the moment."""
    path, pauses = failing(number, 99)
    with pytest.raises(
        files.Unreachable, match="three times: mend or restore it, and the same command goes on"
    ) as raised:
        files.read(path)
    assert raised.value.errno == number and raised.value.filename == path and pauses == [1, 10]
    with pytest.raises(files.Unreachable):
        sources.DecodedSource(sources.FileSource(str(tmp_path), ("photo.png", "other.png")))[0]
    with pytest.raises(files.Unreachable):
        masks.draw(masks.Family("folder", (0.1, 0.9), path=str(tmp_path)), 0, 0, 0, (16, 16))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG])
def test_errors_about_the_file_are_not_tried_again(failing, number):
    path, pauses = failing(number, 1)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as raised:
        files.read(path)
    assert not isinstance(raised.value, files.Unreachable) and not pauses


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused(tmp_path, kind):
    """A pipe without a writer and a device without an end are errors, and nothing waits for them."""
    path = "/dev/zero"
    if kind == "pipe":
        path = str(tmp_path / "pipe.png")
        os.mkfifo(path)
    with pytest.raises(errors.UserError, match="is a pipe or a device; needs a file"):
        files.read(path)


def test_every_name_is_printable():
    """Names with line breaks, and names that are not text, are escaped; others stay."""
    assert files.printable("café 1.png") == "café 1.png"
    assert files.printable("a\nb.png") == r"'a\nb.png'"
    assert files.printable(os.fsdecode(b"a\xff.png")).encode("ascii") == rb"'a\udcff.png'"
