"""Tiny configs and runs for tests."""

import functools
import os

import numpy as np

from experiments import default
from pconv_jax.training import build


def tiny(**changes):
    """A config of a network of two levels at 16 x 16, on photographs; `changes` by dotted key."""
    config = default.get_config()
    config.name = "tiny"
    settings = {
        "data.size": 16,
        "data.cache": True,
        "model.depth": 2,
        "model.width": 8,
        "model.max_width": 16,
        "model.kernels": (3,),
        "model.conv_impl": "xla",  # compiles fastest, and its programs are kept, also by the processes that tests start
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


@functools.cache
def _photos():
    return build.image_sources(tiny())[0]


def batch(config, step=0):
    """The batch of a step, on the host."""
    return next(iter(build.train_batches(config, _photos(), start=step)))


def phases(config):
    """Returns the phases of a config."""
    return build.experiment(config).phases


def train_step(config, phase):
    """Returns the training step of a config in a phase."""
    return build.experiment(config).make_step(phase)


def constant_batch(config, value=128):
    """A batch without content: grey images, one hole each."""
    shape = (config.train.batch_size, config.data.size, config.data.size, config.model.channels)
    mask = np.ones((*shape[:3], 1), np.uint8)
    mask[:, 4:8, 4:8] = 0
    return {"image": np.full(shape, value, np.uint8), "mask": mask, "skipped": np.zeros(shape[0], np.int32)}


def environment(devices):
    """Of a process of its own with simulated devices, which compiles nothing that another one has compiled."""
    cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, **cache, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
