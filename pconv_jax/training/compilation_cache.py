"""Caches compiled functions in the user's cache directory, so that the same command starts faster the next time.

JAX's cache key has the operations, the options and JAX's version, but not the processor: XLA would run machine code
with instructions that this processor lacks, after only a warning. Machines that share a home directory therefore have
one directory per kind of processor.
"""

import hashlib
import os
import platform
import re

import jax
from absl import logging
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from pconv_jax.ops.cpu import dispatch

MIN_SECONDS = 0.1  # Functions that compile faster are not cached.


def enable(wanted: bool, model=None):
    """Turns JAX's persistent compilation cache on or off. It must be called before anything is compiled.

    The environment variables JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE stay in force. If the directory
    cannot be written to, a warning is logged and functions are compiled without a cache.

    Args:
      wanted: whether to use the cache; if False, nothing is read from it or written to it.
      model: the section `config.model` of the network to compile. With `conv_impl` "onednn" the cache is off if oneDNN
        is usable, whatever `wanted` is, because XLA cannot serialise its calls (`ops.cpu.onednn`).
    """
    if model is not None and model.conv_impl == "onednn" and jax.default_backend() == "cpu":
        before = jax.config.jax_enable_compilation_cache
        jax.config.update("jax_enable_compilation_cache", False)
        if dispatch.onednn_usable(model.dtype):
            logging.info("oneDNN computes the convolutions; compiled functions are not cached")
            return
        logging.warning("oneDNN is not usable in %s here: model.conv_impl=auto is used instead", model.dtype)
        jax.config.update("jax_enable_compilation_cache", before)
        jax_cache.reset_cache()  # JAX remembers that the trial was compiled without a cache
    if not wanted:
        jax.config.update("jax_enable_compilation_cache", False)
    if not jax.config.jax_enable_compilation_cache or jax.config.jax_compilation_cache_dir:
        return
    path = directory()
    try:
        # Whoever can write here can run code in this user's processes.
        os.makedirs(path, mode=0o700, exist_ok=True)
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError("not writable")
        if os.stat(path).st_uid != os.getuid() or os.stat(path).st_mode & 0o022:
            raise PermissionError("others can write to it")
    except OSError as error:
        logging.warning("compiled functions are not cached, %s cannot be used: %s", path, error)
        return
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)


def directory() -> str:
    """Returns `<cache>/pconv_jax/programs/<kind of machine>`; the cache is $XDG_CACHE_HOME or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "pconv_jax", "programs", hashlib.sha256(_machine().encode()).hexdigest()[:16])


def _machine():
    """Returns a text about the CPU that XLA compiles for: model, features, and the number of cores it uses."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            text = file.read()
        lines = re.findall(r"^(?:vendor_id|cpu family|model|flags|Features|CPU part)\s*:.*$", text, re.MULTILINE)
    except OSError:
        lines = [platform.processor()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "\n".join([platform.system(), platform.machine(), str(cores), *sorted(set(lines))])
