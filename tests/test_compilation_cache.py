"""Tests of the cache of compiled functions: it is used again, private, specific to the machine, and never fatal."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from jax.experimental.compilation_cache import compilation_cache as jax_cache

import runs
from pconv_jax.ops.cpu import onednn
from pconv_jax.training import compilation_cache

SETTINGS = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """Resets JAX to the state of a new process whose user has an empty cache directory, and returns that directory."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    jax_cache.reset_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


@jax.jit
def program(x):
    return jnp.sin(x) @ jnp.cos(x)


def run():
    """Compiles the function as a new process would, and calls it."""
    program.clear_cache()
    return np.asarray(program(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)))


def test_programs_are_found_again(unset, monkeypatch):
    """The second call uses the file of the first and gives the same bits; a damaged file only causes a warning."""
    monkeypatch.setattr(compilation_cache, "MIN_SECONDS", 0.0)
    compilation_cache.enable(True)
    first = run()
    (entry,) = [path for path in pathlib.Path(compilation_cache.directory()).iterdir() if "program" in path.name]
    assert unset in entry.parents
    hits = []

    def listen(name, **_):
        if name.endswith("cache_hits"):
            hits.append(name)

    jax.monitoring.register_event_listener(listen)
    again = run()
    jax.monitoring.unregister_event_listener(listen)
    assert hits and first.tobytes() == again.tobytes()
    entry.write_bytes(entry.read_bytes()[:100])
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry"):
        assert run().tobytes() == first.tobytes()


def test_the_directory_is_the_users_own(unset, monkeypatch):
    """The directory is below XDG_CACHE_HOME or ~/.cache and closed to other users, because its files are executed."""
    assert compilation_cache.directory().startswith(f"{unset}/pconv_jax/programs/")
    compilation_cache.enable(True)
    assert os.stat(compilation_cache.directory()).st_mode & 0o077 == 0
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert compilation_cache.directory().startswith(os.path.expanduser("~/.cache/pconv_jax/programs/"))


def test_other_machines_have_another_directory(unset, monkeypatch):
    """Functions compiled for another processor or another number of cores have another directory."""
    directories = {compilation_cache.directory()}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1000)), raising=False)
    directories.add(compilation_cache.directory())
    text = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    other = unset / "cpuinfo"
    other.write_text(text.replace("flags\t\t:", "flags\t\t: avx1024") + "flags\t\t: avx1024\n")
    monkeypatch.setattr("builtins.open", lambda path, *a, opener=open, **k: opener(other, *a, **k))
    directories.add(compilation_cache.directory())
    assert len(directories) == 3


def test_what_the_environment_says_stays(unset):
    """What JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE=false set when JAX is imported stays."""
    jax.config.update("jax_compilation_cache_dir", "/given")
    compilation_cache.enable(True)
    assert jax.config.jax_compilation_cache_dir == "/given" and not list(unset.iterdir())
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.enable(True)
    assert not jax.config.jax_enable_compilation_cache and not list(unset.iterdir())


def test_off_is_off(unset):
    """The cache can be switched off even if the environment names a directory."""
    jax.config.update("jax_compilation_cache_dir", str(unset))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.enable(False)
    run()
    assert not list(unset.iterdir())


def test_a_directory_that_cannot_be_made_is_a_warning(unset, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *a: warnings.append(text % a))
    (unset / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(unset / "file"))
    compilation_cache.enable(True)
    (text,) = warnings
    assert "compiled functions are not cached" in text and str(unset / "file") in text
    assert not jax.config.jax_compilation_cache_dir
    run()


def test_a_directory_that_others_can_write_to_is_not_used(unset, caplog):
    """A directory that other users can write to is refused, because what lies there is executed."""
    os.makedirs(compilation_cache.directory())
    os.chmod(compilation_cache.directory(), 0o777)
    compilation_cache.enable(True)
    assert "others can write to it" in caplog.text and not jax.config.jax_compilation_cache_dir


def test_programs_are_kept_where_onednn_is_not_usable(unset, monkeypatch):
    """The cache works although the trial of oneDNN was compiled with the cache switched off, which JAX remembers."""
    monkeypatch.setattr(compilation_cache, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(onednn, "_call", lambda target, config, shape, *operands: jnp.zeros(shape, jnp.float32))
    onednn._agrees_with_xla.cache_clear()
    compilation_cache.enable(True, runs.tiny(**{"model.conv_impl": "onednn"}).model)
    onednn._agrees_with_xla.cache_clear()
    run()
    assert [path for path in pathlib.Path(compilation_cache.directory()).iterdir() if "program" in path.name]
