"""Tiny configs, states and batches for tests of training."""

import functools
import json
import os

import jax
import numpy as np

from experiments import default
from pconv_jax.training import build


def tiny(**changes):
    """Returns a config of a network with two downsampling stages at 16 x 16 pixels, on photographs.

    Args:
      **changes: values of other keys, by dotted key.
    """
    config = default.get_config()
    config.name = "tiny"
    settings = {
        "data.size": 16,
        "data.cache": True,
        "model.depth": 2,
        "model.width": 8,
        "model.max_width": 16,
        "model.kernels": (3,),
        "model.conv_impl": "xla",  # It compiles fastest, and its compiled functions can be cached.
        "optim.lr": 1e-3,
        "train.steps": 4,
        "finetune.steps": 0,
        "train.batch_size": 8,
        "train.log_every": 2,
        "train.checkpoint_every": 2,
        "train.sample_every": 4,
        "train.samples": 2,
        "eval.examples": 10,
        "eval.batch_size": 8,
    }
    config.update_from_flattened_dict({**settings, **changes})
    return config


_INITIAL_STATES = {}  # By the JSON text of the parts of a config that the state depends on.


@functools.cache
def _photos():
    return build.image_sources(tiny())[0]


def batch(config, step=0):
    """Returns the training batch of a step as NumPy arrays.

    Args:
      config: experiment config.
      step: index of the step.
    """
    return next(iter(build.train_batches(config, _photos(), start=step)))


def initial_state(config):
    """Returns `build.initial_state(config)` as NumPy arrays, computed once per process for configs that share it."""
    shared = {name: value for name, value in config.to_dict().items() if name in ("data", "model", "optim", "seed")}
    text = json.dumps(shared, sort_keys=True)
    if text not in _INITIAL_STATES:
        _INITIAL_STATES[text] = jax.device_get(build.initial_state(config))
    return _INITIAL_STATES[text]


def phases(config):
    """Returns the phases of a config."""
    return build.experiment(config).phases


def train_step(config, phase):
    """Returns the training step of a config in a phase."""
    return build.experiment(config).make_step(phase)


def constant_batch(config, value=128):
    """Returns a batch of constant images with one square hole each.

    Args:
      config: experiment config.
      value: value of all pixels, 0 to 255.
    """
    shape = (config.train.batch_size, config.data.size, config.data.size, config.model.channels)
    mask = np.ones((*shape[:3], 1), np.uint8)
    mask[:, 4:8, 4:8] = 0
    return {"image": np.full(shape, value, np.uint8), "mask": mask, "skipped": np.zeros(shape[0], np.int32)}


def environment(devices):
    """Returns environment variables of a process that simulates `devices` devices and caches all compiled functions."""
    cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, **cache, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
