"""Files from the network, checked while they arrive. A machine without a network learns so within seconds."""

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

_CONNECT_S, _READ_S = 5, 30
_BLOCK = 1 << 20


class Unreachable(OSError):
    """The file could not be fetched, which says nothing about the file."""


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face repository at one commit. `endpoint` and `cache` are the client's own by default."""

    repo: str
    revision: str
    name: str
    endpoint: str | None = None
    cache: str | None = None


@dataclasses.dataclass(frozen=True)
class Published:
    """A file that can be downloaded, and by hand from `url`. `hub`, where set, is the same file for the hub's client.

    Attributes:
      url, megabytes: where it is, and how large.
      checksum: see `check`.
    """

    url: str
    megabytes: float
    checksum: str
    hub: HubFile | None = None

    @property
    def name(self) -> str:
        return os.path.basename(self.url)


def get(file: Published, folder: str) -> str:
    """Downloads into `folder`, or into the cache of the hub's client, and gives the path.

    Raises:
      Unreachable, ValueError: as `fetch`.
    """
    if file.hub is not None:
        return fetch_hub(file.hub, file.checksum)
    path = os.path.join(folder, file.name)
    fetch(file.url, path, file.checksum)
    return path


def check(path: str, checksum: str, fix: str):
    """Compares a file with `"<algorithm>:<hexadecimal>"`, of which the first digits are enough.

    Raises:
      ValueError: they differ; the message ends with `fix`.
    """
    algorithm, wanted = checksum.split(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    found = digest.hexdigest()
    if not found.startswith(wanted):
        raise ValueError(f"{path} has {algorithm} {found[: len(wanted)]}; needs {wanted}: {fix}")


def fetch(url: str, path: str, checksum: str, *, connect_s: float = _CONNECT_S):
    """Downloads one file and says on stderr how far it is.

    Raises:
      Unreachable: no answer after `connect_s` seconds, an answer that is an error, or a connection that broke.
      ValueError: another checksum. `path` does not exist then, nor after any other failure.
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
    """The path of the file in the hub client's cache, where it stays; downloaded if it is not there yet.

    Raises:
      Unreachable, ValueError: as `fetch`. A file with another checksum is removed from the cache.
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
            # Asked first, because the download itself tries for half a minute before it says that there is no network.
            _within(connect_s, huggingface_hub.get_hf_file_metadata, url, token=False, timeout=connect_s)
            path = huggingface_hub.hf_hub_download(**place, endpoint=file.endpoint, cache_dir=file.cache, token=False)
        except Exception as error:  # those of the HTTP library that this version of the client uses
            raise Unreachable(_reason(error)) from error
    try:
        check(path, checksum, "it was removed from the cache: run again")
    except ValueError:
        for name in {path, os.path.realpath(path)}:  # the name in the cache is a link where links exist
            os.remove(name)
        raise
    return path


def _within(seconds, function, *args, **kwargs):
    """Calls, and gives up after so many seconds: a socket's timeout counts anew for each address, and not for DNS."""
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
    start = shown = time.monotonic()
    pause, end = (0.5, "\r") if sys.stderr.isatty() else (5, "\n")
    while block := response.read(_BLOCK):
        file.write(block)
        done += len(block)
        now = time.monotonic()
        if now - shown >= pause or done == total:
            rate = done / max(now - start, 1e-3)
            of = (
                f"of {total / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s, {(total - done) / rate:.0f} s left" if total else "MB"
            )
            print(f"{done / 1e6:.1f} {of}  ", end="\n" if done == total else end, file=sys.stderr, flush=True)
            shown = now
    if done < total:
        raise ConnectionError(f"the connection broke after {done / 1e6:.1f} of {total / 1e6:.1f} MB")


def _reason(error):
    reason = error.reason if type(error) is urllib.error.URLError else error  # which only wraps the reason
    return " ".join(str(reason).split()) or type(error).__name__
