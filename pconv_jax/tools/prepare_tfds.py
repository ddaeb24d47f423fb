"""Prepares a TFDS dataset for training, without TensorFlow: downloads it, or takes the files that a person downloaded.

    python -m pconv_jax.tools.prepare_tfds celeb_a [--manual_dir=DIR] [--data_dir=DIR]

Where files are missing, damaged or cannot be downloaded (Google Drive refuses CelebA on busy days), it says which, how
large they are, where they are and where to put them. Started again, it goes on with the files that are there; a dataset
that is ready stays as it is.
"""

import contextlib
import dataclasses
import glob
import os
import shutil
import socket
import tarfile
import textwrap
import threading
import urllib.parse
import urllib.request
import zipfile

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.data import tfds_source
from pconv_jax.tools import without_tensorflow
from pconv_jax.training import rundir

_SECONDS = 3  # to wait for a connection before calling this machine offline
_LISTED = 20  # files in a message; a few datasets have thousands


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A file that a dataset is made from.

    Attributes:
      name: under which TFDS looks for it in the manual directory.
      url, size: where it comes from, and its bytes.
      cached: path of TFDS's own download of it.
      manual: path in the manual directory, or empty if TFDS would not look there.
      required: whether only a person can get it.
    """

    name: str
    url: str
    size: int
    cached: str
    manual: str
    required: bool

    @property
    def state(self) -> str:
        """ "there", "missing", or what is wrong with the file in the manual directory."""
        if os.path.isfile(self.manual):
            size = os.path.getsize(self.manual)
            return "there" if size == self.size else f"has {size:,} bytes"
        return "there" if all(map(os.path.isfile, (self.cached, f"{self.cached}.INFO"))) else "missing"


class Preparation:
    """One dataset, the files it needs, and where they are."""

    def __init__(self, name: str, manual: str = "", directory: str = ""):
        self.name, self.directory = name, directory
        self.builder = tfds_source.find(name, directory)
        self.manual = os.path.abspath(os.path.expanduser(manual or tfds_source.manual_directory(self.builder)))
        self.downloads = os.path.join(str(self.builder.data_dir_root), "downloads")
        self.guide = textwrap.dedent(self.builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").strip()
        self.artifacts = [self._artifact(url, info) for url, info in (self.builder.url_infos or {}).items()]

    def run(self) -> bool:
        """Prepares the dataset; False if it was ready before.

        Raises:
          UserError: it cannot be prepared; says what to do.
        """
        if tfds_source.is_prepared(self.builder):
            tfds_source.prepared(self.builder, self.name, self.directory)
            return False
        if os.path.exists(self.builder.data_dir):  # TFDS would take it for the dataset
            raise errors.UserError(
                f"{self.builder.data_dir} holds no whole dataset: remove it, and run the command again"
            )
        _check_packages()
        self._check_files()
        with self._alone():
            self._remove_leftovers()
            self._prepare()
        return True

    def instructions(self, reason: str) -> str:
        """What a person has to do."""
        command = tfds_source.command(self.builder, self.name, self.directory, self.manual)
        lines = [f"{self.name} cannot be prepared: {reason}"]
        if self.guide:
            lines += ["", self.guide, f"manual_dir is {self.manual}"]
        files = [a for a in self.artifacts if a.manual]
        if files:
            name, state = (max(len(getattr(a, field)) for a in files) for field in ("name", "state"))
            lines += ["", f"Put these files into {self.manual}:"]
            lines += [f"  {a.name:{name}} {a.size:>15,} bytes  {a.state:{state}}  {a.url}" for a in files[:_LISTED]]
            lines += [f"  and {len(files) - _LISTED} more"] if len(files) > _LISTED else []
            lines += ["They have to be the originals, byte for byte. For images that come packed otherwise, train with"]
            lines += ["--config.data.source=folder --config.data.path=DIR"]
        homepage = self.builder.info.homepage
        return "\n".join([*lines, "", *([f"Homepage: {homepage}"] if homepage else []), f"Then run\n  {command}"])

    def _artifact(self, url, info):
        from tensorflow_datasets.core.download import resource

        name = info.filename or os.path.basename(urllib.parse.urlsplit(url).path)
        required = bool(name) and name in self.guide
        cached = os.path.join(self.downloads, self.builder.name, resource.get_dl_fname(url, info.checksum))
        manual = os.path.join(self.manual, name) if info.filename or required else ""
        return Artifact(name, url, int(info.size), cached, manual, required)

    def _check_files(self):
        """Finds within seconds what TFDS would find after minutes: wrong files, missing files, no network."""
        states = {a: a.state for a in self.artifacts}
        fitting = {a.name for a, state in states.items() if state == "there"}  # a name may stand for several files
        wrong = [a for a, state in states.items() if state not in ("there", "missing") and a.name not in fitting]
        if wrong:
            raise errors.UserError(
                self.instructions(f"{wrong[0].manual} {states[wrong[0]]}; the original has {wrong[0].size:,}")
            )
        missing = [a for a, state in states.items() if state == "missing"]
        by_hand = [a.name for a in missing if a.required]
        if by_hand:
            raise errors.UserError(self.instructions(f"{', '.join(by_hand)} cannot be downloaded by a program"))
        if self.guide and not (os.path.isdir(self.manual) and os.listdir(self.manual)):
            raise errors.UserError(self.instructions("a part of it cannot be downloaded by a program"))
        # One list of files serves all configurations of a dataset: with some of them there, it may be complete.
        if missing and not (self.builder.builder_config and fitting):
            largest = max(missing, key=lambda a: a.size)
            if not reachable(largest.url):
                host = urllib.parse.urlsplit(largest.url).hostname
                raise errors.UserError(self.instructions(f"{largest.name} is missing, and {host} does not answer"))

    def _alone(self):
        """One preparation of a dataset at a time."""
        os.makedirs(self.downloads, exist_ok=True)
        refusal = f"another process is preparing {self.name} in {self.downloads}: wait for it"
        return rundir.exclusively(os.path.join(self.downloads, f"{self.builder.name}.lock"), refusal)

    def _remove_leftovers(self):
        """Removes what a killed preparation left; TFDS starts anew beside it and never looks at it again."""
        parent, version = os.path.split(str(self.builder.data_dir))
        patterns = [os.path.join(glob.escape(parent), f"incomplete.??????_{version}")]
        for artifact in self.artifacts:
            cached = glob.escape(os.path.basename(artifact.cached))
            patterns.append(os.path.join(glob.escape(self.downloads), "extracted", f"incomplete.*_{cached}"))
        patterns.append(os.path.join(glob.escape(self.downloads), self.builder.name, f"*.tmp.{'[0-9a-f]' * 32}"))
        for path in [path for pattern in patterns for path in glob.glob(pattern)]:
            print(f"removing {path}, left by a preparation that was killed")
            shutil.rmtree(path)

    def _prepare(self):
        """TFDS's own preparation; what a person can mend becomes instructions."""
        import requests
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import download_manager, util

        unmet = (
            download_manager.NonMatchingChecksumError,
            util.DownloadError,
            requests.RequestException,
            AssertionError,  # TFDS's for a manual directory without the files
            FileNotFoundError,
            tarfile.TarError,
            zipfile.BadZipFile,
        )
        config = tfds.download.DownloadConfig(manual_dir=self.manual, try_download_gcs=False)
        try:
            with without_tensorflow.stand_in():
                self.builder.download_and_prepare(file_format=tfds_source.FORMAT, download_config=config)
        except unmet as error:
            raise errors.UserError(self.instructions(str(error).partition("\n")[0].rstrip(":"))) from error
        except ImportError as error:
            raise errors.UserError(
                f"{self.name} needs the package {error.name}, which is not installed ({error}): install it, or prepare "
                f"the dataset where it is, as {tfds_source.FORMAT}, and copy it to {self.builder.data_dir}"
            ) from error
        except ValueError as error:
            if "confirmation link" not in str(error):
                raise
            reason = f"Google Drive refuses the download for now, as it does when a file is in demand ({error})"
            raise errors.UserError(self.instructions(reason)) from error


def reachable(url: str) -> bool:
    """Whether the host of a URL, or the proxy before it, accepts a connection within seconds.

    In a thread, because no timeout bounds the look-up of a name.
    """
    parts = urllib.parse.urlsplit(url)
    proxies = {} if urllib.request.proxy_bypass(parts.hostname or "") else urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy:
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    port = parts.port or {"http": 80, "ftp": 21}.get(parts.scheme, 443)
    answered = threading.Event()

    def connect():
        with contextlib.suppress(OSError), socket.create_connection((parts.hostname, port), timeout=_SECONDS):
            answered.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answered.is_set()


def _check_packages():
    """TFDS finds these missing in the middle of its work only: it does not declare them."""
    try:
        import bs4  # noqa: F401, Google Drive's page before a large file
        import importlib_resources  # noqa: F401, the code of a dataset
    except ImportError as error:
        raise errors.UserError(
            f"TFDS needs {error.name} to prepare a dataset: pip install -r requirements.txt"
        ) from error


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.prepare_tfds`."""
    about = "Directory of downloaded files; default <data_dir>/downloads/manual."
    flags.DEFINE_string("manual_dir", "", about, flag_values)
    about = "Where TFDS keeps datasets; default $TFDS_DATA_DIR or ~/tensorflow_datasets."
    flags.DEFINE_string("data_dir", "", about, flag_values)


def main(flag_values: flags.FlagValues, name: str):
    """Prepares a dataset, and prints how to train on it."""
    preparation = Preparation(name, flag_values.manual_dir, flag_values.data_dir)
    fresh = preparation.run()
    builder, directory = preparation.builder, flag_values.data_dir
    splits = ", ".join(f"{split} {info.num_examples:,}" for split, info in builder.info.splits.items())
    options = f"--config.data.source=tfds --config.data.name={name}"
    options += f" --config.data.dir={os.path.abspath(os.path.expanduser(directory))}" if directory else ""
    print(f"{name} {'is' if fresh else 'was'} prepared in {builder.data_dir}: {splits}\nTrain on it with {options}")


if __name__ == "__main__":
    command_line.run(
        main,
        define_flags,
        argument="the name of one dataset, e.g. celeb_a",
        interrupted="interrupted: the same command starts again",
    )
