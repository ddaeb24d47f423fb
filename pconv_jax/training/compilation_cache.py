"""Compiled programs are kept in the user's cache directory, so that the same command starts faster next time.

JAX finds a program again by its operations, its options and JAX's version, but not by the processor: XLA would run
machine code with instructions that this one lacks, after no more than a line in the log. Machines that share a home
directory therefore get a directory each, by kind.
"""

import hashlib
import os
import platform
import re

import jax
from absl import logging
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from pconv_jax.ops.cpu import dispatch

MIN_SECONDS = 0.1  # of compilation; what takes less is not worth a file


def enable(wanted: bool, model=None):
    """Turns JAX's persistent compilation cache on or off. Before anything is compiled.

    What the environment says (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE) stays as it is. A directory
    that cannot be written to is a warning: programs are compiled, as they would be without.

    Args:
      wanted: False: neither look programs up nor keep them, wherever.
      model: `config.model` of what is going to be compiled. Programs with oneDNN's calls cannot be stored
        (`ops.cpu.onednn`). They save more than the cache does, so with them nothing is stored, whatever `wanted` is.
    """
    if model is not None and model.conv_impl == "onednn" and jax.default_backend() == "cpu":
        before = jax.config.jax_enable_compilation_cache
        jax.config.update("jax_enable_compilation_cache", False)
        if dispatch.onednn_usable(model.dtype):
            logging.info("convolutions by oneDNN; programs are compiled anew each time")
            return
        logging.warning('oneDNN is not usable in %s here: model.conv_impl is taken for "auto"', model.dtype)
        jax.config.update("jax_enable_compilation_cache", before)
        jax_cache.reset_cache()  # the trial was compiled without, which JAX remembers
    if not wanted:
        jax.config.update("jax_enable_compilation_cache", False)
    if not jax.config.jax_enable_compilation_cache or jax.config.jax_compilation_cache_dir:
        return
    path = directory()
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)  # who writes here decides what this user's processes run
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError("not writable")
        if os.stat(path).st_uid != os.getuid() or os.stat(path).st_mode & 0o022:
            raise PermissionError("others can write to it")
    except OSError as error:
        logging.warning("programs are compiled anew each time, %s cannot be used: %s", path, error)
        return
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)


def directory() -> str:
    """`$XDG_CACHE_HOME/pconv_jax/programs/<kind of machine>`, without XDG_CACHE_HOME below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return os.path.join(base, "pconv_jax", "programs", hashlib.sha256(_machine().encode()).hexdigest()[:16])


def _machine():
    """What XLA compiles for on a CPU: its kind and features, and the number of cores that loops are divided over."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            text = file.read()
        lines = re.findall(r"^(?:vendor_id|cpu family|model|flags|Features|CPU part)\s*:.*$", text, re.MULTILINE)
    except OSError:
        lines = [platform.processor()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "\n".join([platform.system(), platform.machine(), str(cores), *sorted(set(lines))])
