"""Prepares a TFDS dataset for training without TensorFlow, from a download or from files that the user downloaded.

    python -m pconv_jax.tools.prepare_tfds celeb_a [--manual_dir=DIR] [--data_dir=DIR]

If files are missing, damaged or cannot be downloaded (Google Drive refuses CelebA on busy days), the command lists them
with their sizes and addresses, and with the directory to put them into. The same command then continues with the files
that exist. A dataset that has been prepared is left unchanged.
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

_SECONDS = 3  # How long to wait for a connection before this machine counts as offline.
_LISTED = 20  # The number of files that a message lists; a few datasets have thousands.


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A file that a dataset is made from.

    Attributes:
      name: file name by which TFDS looks for it in the manual directory.
      url: address of the original.
      size: size of the original in bytes.
      cached: path of TFDS's own download of it.
      manual: path in the manual directory, or empty if TFDS does not look there.
      required: whether the user has to download it, because a program cannot.
    """

    name: str
    url: str
    size: int
    cached: str
    manual: str
    required: bool

    @property
    def state(self) -> str:
        """Returns "there", "missing", or a description of a wrong file in the manual directory."""
        if os.path.isfile(self.manual):
            size = os.path.getsize(self.manual)
            return "there" if size == self.size else f"has {size:,} bytes"
        return "there" if all(map(os.path.isfile, (self.cached, f"{self.cached}.INFO"))) else "missing"


class Preparation:
    """The preparation of one dataset from the files that it needs."""

    def __init__(self, name: str, manual: str = "", directory: str = ""):
        """Finds the dataset and lists the files that it needs.

        Args:
          name: name of the dataset, e.g. "celeb_a".
          manual: directory of the files that the user has downloaded; TFDS's default if empty.
          directory: directory in which TFDS keeps datasets; TFDS's default if empty.

        Raises:
          UserError: TFDS knows no such dataset.
        """
        self.name, self.directory = name, directory
        self.builder = tfds_source.find(name, directory)
        self.manual = os.path.abspath(os.path.expanduser(manual or tfds_source.manual_directory(self.builder)))
        self.downloads = os.path.join(str(self.builder.data_dir_root), "downloads")
        self.guide = textwrap.dedent(self.builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").strip()
        self.artifacts = [self._artifact(url, info) for url, info in (self.builder.url_infos or {}).items()]

    def run(self) -> bool:
        """Prepares the dataset, and returns False if it had been prepared before.

        Raises:
          UserError: it cannot be prepared; the message explains what to do.
        """
        if tfds_source.is_prepared(self.builder):
            tfds_source.prepared(self.builder, self.name, self.directory)
            return False
        if os.path.exists(self.builder.data_dir):  # TFDS would mistake it for the dataset.
            raise errors.UserError(
                f"{self.builder.data_dir} holds an incomplete dataset: remove it, and run the command again"
            )
        _check_packages()
        self._check_files()
        with self._alone():
            self._remove_leftovers()
            self._prepare()
        return True

    def instructions(self, reason: str) -> str:
        """Returns instructions for the user: why it failed, which files are needed, and the command to run then."""
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
            lines += ["They must be the originals, byte for byte. If you have the images in another form, train with"]
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
        """Checks for wrong files, missing files and a missing network, which TFDS would report only after minutes."""
        states = {a: a.state for a in self.artifacts}
        fitting = {a.name for a, state in states.items() if state == "there"}  # Several files may have the same name.
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
        # All configurations of a dataset share one list of files, so one may be complete without all of them.
        if missing and not (self.builder.builder_config and fitting):
            largest = max(missing, key=lambda a: a.size)
            if not reachable(largest.url):
                host = urllib.parse.urlsplit(largest.url).hostname
                raise errors.UserError(self.instructions(f"{largest.name} is missing, and {host} does not answer"))

    def _alone(self):
        """Returns a context manager that holds a lock, so that one process at a time prepares this dataset."""
        os.makedirs(self.downloads, exist_ok=True)
        refusal = f"another process is preparing {self.name} in {self.downloads}: wait for it"
        return rundir.exclusively(os.path.join(self.downloads, f"{self.builder.name}.lock"), refusal)

    def _remove_leftovers(self):
        """Removes the files of a preparation that was killed; TFDS would start anew and leave them there."""
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
        """Calls TFDS's own preparation; errors that the user can mend become instructions."""
        import requests
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download import download_manager, util

        unmet = (
            download_manager.NonMatchingChecksumError,
            util.DownloadError,
            requests.RequestException,
            AssertionError,  # TFDS raises it if the manual directory lacks files.
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
                f"the dataset on a machine that has it, as {tfds_source.FORMAT}, and copy it to {self.builder.data_dir}"
            ) from error
        except ValueError as error:
            if "confirmation link" not in str(error):
                raise
            reason = f"Google Drive refuses the download for now, as it does when a file is in demand ({error})"
            raise errors.UserError(self.instructions(reason)) from error


def reachable(url: str) -> bool:
    """Returns whether the host of a URL, or its proxy, accepts a connection within `_SECONDS`.

    It connects in a thread, because no timeout limits the look-up of a host name.
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
    """Checks for packages that TFDS needs but does not declare, and would miss only in the middle of its work."""
    try:
        import bs4  # noqa: F401, for Google Drive's page before a large file
        import importlib_resources  # noqa: F401, for the code of datasets
    except ImportError as error:
        raise errors.UserError(
            f"TFDS needs {error.name} to prepare a dataset: pip install -r requirements.txt"
        ) from error


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.prepare_tfds`."""
    about = "Directory of downloaded files; default <data_dir>/downloads/manual."
    flags.DEFINE_string("manual_dir", "", about, flag_values)
    about = "Directory in which TFDS keeps datasets; default $TFDS_DATA_DIR or ~/tensorflow_datasets."
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
