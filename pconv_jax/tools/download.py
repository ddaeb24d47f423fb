"""Downloads published files and checks them. Without a network it fails within seconds, with the reason."""

import dataclasses
import hashlib
import http.client
import os
import queue
import sys
import threading
import time
import urllib.error
import urllib.request

from pconv_jax import errors

_CONNECT_S, _READ_S = 5, 30  # Seconds to wait for an answer, and for each following block.
_BLOCK = 1 << 20  # Bytes that are read at once.


class Unreachable(OSError):
    """The file could not be fetched: no network, no answer, or a broken connection."""


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face repository at one commit.

    Attributes:
      repo: `owner/name`.
      revision: commit, in hexadecimal.
      name: path in the repository.
      endpoint: address of the hub; None for the client's default.
      cache: directory of the client's cache; None for the client's default.
    """

    repo: str
    revision: str
    name: str
    endpoint: str | None = None
    cache: str | None = None


@dataclasses.dataclass(frozen=True)
class Published:
    """A published file with its checksum.

    Attributes:
      url: address, also for a download by hand.
      megabytes: size; None where it is not known.
      checksum: `"<algorithm>:<hexadecimal>"`; the first digits are enough (`check`).
      hub: the same file on the Hugging Face hub, which is preferred where it is set.
    """

    url: str
    megabytes: float | None
    checksum: str
    hub: HubFile | None = None

    @property
    def name(self) -> str:
        """Returns the file name at the end of the address."""
        return os.path.basename(self.url)


def get(file: Published, folder: str) -> str:
    """Downloads a published file.

    Args:
      file: the file.
      folder: directory to write to; a file of the hub stays in the cache of the hub's client instead.

    Returns:
      The path of the file.

    Raises:
      Unreachable: the file could not be fetched.
      UserError: the checksum differs.
    """
    if file.hub is not None:
        return fetch_hub(file.hub, file.checksum)
    path = os.path.join(folder, file.name)
    fetch(file.url, path, file.checksum)
    return path


def check(path: str, checksum: str, fix: str):
    """Compares a file with a checksum.

    Args:
      path: the file.
      checksum: `"<algorithm>:<hexadecimal>"`; the first digits are enough, as in the names of PyTorch's files.
      fix: end of the error message, which tells the user what to do.

    Raises:
      UserError: they differ.
    """
    algorithm, expected = checksum.split(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    actual = digest.hexdigest()
    if not actual.startswith(expected):
        raise errors.UserError(f"{path} has {algorithm} {actual[: len(expected)]}; needs {expected}: {fix}")


def fetch(url: str, path: str, checksum: str, *, connect_s: float = _CONNECT_S):
    """Downloads one file and reports the progress on stderr. After a failure, `path` does not exist.

    Args:
      url: address of the file.
      path: file to write.
      checksum: expected checksum (`check`).
      connect_s: seconds to wait for an answer.

    Raises:
      Unreachable: there was no answer in time, the answer was an error, or the connection broke.
      UserError: the checksum differs.
    """
    try:
        with _within(connect_s, urllib.request.urlopen, url, timeout=_READ_S) as response, open(path, "wb") as file:
            _copy(response, file)
        check(path, checksum, f"the server at {url} sent another file: run again, or give the right one with --file")
    except (OSError, ValueError, http.client.HTTPException) as error:
        if os.path.exists(path):
            os.remove(path)
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        if isinstance(error, ValueError):
            raise
        raise Unreachable(_reason(error)) from error


def fetch_hub(file: HubFile, checksum: str, *, connect_s: float = _CONNECT_S) -> str:
    """Downloads a file of the Hugging Face hub unless the client's cache has it.

    Args:
      file: the file.
      checksum: expected checksum (`check`). A file with another one is removed from the cache.
      connect_s: seconds to wait for an answer.

    Returns:
      The path of the file in the cache, where it stays.

    Raises:
      Unreachable: the file could not be fetched, or the hub's client is not installed.
      UserError: the checksum differs.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise Unreachable(f"{error.name} is not installed: pip install {error.name}") from error

    place = {"repo_id": file.repo, "revision": file.revision, "filename": file.name}
    path = huggingface_hub.try_to_load_from_cache(**place, cache_dir=file.cache)
    if not isinstance(path, str):
        try:
            url = huggingface_hub.hf_hub_url(**place, endpoint=file.endpoint)
            # The metadata comes first: without a network, the download itself would retry for half a minute.
            _within(connect_s, huggingface_hub.get_hf_file_metadata, url, token=False, timeout=connect_s)
            path = huggingface_hub.hf_hub_download(**place, endpoint=file.endpoint, cache_dir=file.cache, token=False)
        except Exception as error:  # The exceptions depend on the HTTP library that the client uses.
            raise Unreachable(_reason(error)) from error
    try:
        check(path, checksum, "it was removed from the cache: run again")
    except errors.UserError:
        for name in {path, os.path.realpath(path)}:  # Where links exist, the path in the cache is a link to the file.
            os.remove(name)
        raise
    return path


def _within(seconds, function, *args, **kwargs):
    """Calls a function and raises TimeoutError if it takes longer than `seconds`.

    The timeout of a socket is not enough: it starts anew for each address of a host and does not cover name lookup.
    """
    answers = queue.SimpleQueue()

    def call():
        try:
            answers.put((function(*args, **kwargs), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return result


def _copy(response, file):
    total, done = int(response.headers.get("Content-Length") or 0), 0
    start = reported = time.monotonic()
    pause, end = (0.5, "\r") if sys.stderr.isatty() else (5, "\n")
    while block := response.read(_BLOCK):
        file.write(block)
        done += len(block)
        current = time.monotonic()
        if current - reported >= pause or done == total:
            rate = done / max(current - start, 1e-3)
            rest = f"of {total / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s, {(total - done) / rate:.0f} s left"
            text = f"{done / 1e6:.1f} {rest if total else 'MB'}  "
            print(text, end="\n" if done == total else end, file=sys.stderr, flush=True)
            reported = current
    if done < total:
        raise ConnectionError(f"the connection broke after {done / 1e6:.1f} of {total / 1e6:.1f} MB")


def _reason(error):
    reason = error.reason if type(error) is urllib.error.URLError else error  # URLError only wraps the reason.
    return " ".join(str(reason).split()) or type(error).__name__
