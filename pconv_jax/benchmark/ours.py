"""The worker process that computes with pconv_jax, by the functions that training and evaluation use."""

import os
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax.benchmark import operations, profiling, serving, single_layer
from pconv_jax.evaluation import evaluator
from pconv_jax.models import unet, vgg
from pconv_jax.ops.cpu import dispatch
from pconv_jax.training import build, parallel


def make(task: str, config, batch: dict[str, np.ndarray], options: dict[str, str]) -> serving.Work:
    """Prepares a task for `serving.serve`.

    Args:
      task: "train", "forward", "layer" or "masks".
      config: experiment config.
      batch: see `serving.serve`.
      options: `dtype` replaces the config's; `profile` lets the task "train" be profiled; the task "layer" needs
        `layer`, its name, and `part`, one of `op.PARTS`.
    """
    config.model.dtype = options.get("dtype", config.model.dtype)
    with tempfile.TemporaryDirectory() as directory:
        settings = ""
        if config.loss.vgg16_weights == operations.RANDOM_VGG16:
            config.loss.vgg16_weights = os.path.join(directory, "vgg16.npz")
            np.savez(config.loss.vgg16_weights, **random_vgg16())
            settings = ", random VGG16 weights"
        step, profile = {
            "train": lambda: training(config, batch, options.get("profile", False)),
            "forward": lambda: (prediction(config, batch), None),
            "layer": lambda: (single_layer.call(config, batch, options["layer"], options["part"]), None),
            "masks": lambda: (single_layer.all_masks(config, batch), None),
        }[task]()
    devices = f", {jax.device_count()} devices" if jax.device_count() > 1 else ""
    settings = f"conv_impl {implementation(config.model)}, {config.model.dtype}{devices}{settings}"
    device, on_cpu = jax.devices()[0].device_kind, jax.default_backend() == "cpu"
    return serving.Work(step, settings, device_peak_mib, on_cpu, device=device, profile=profile)


def implementation(model) -> str:
    """Returns the implementation that computes the convolutions in this process.

    Args:
      model: `config.model`.

    Returns:
      One of `dispatch.IMPLS`, followed by the configured `model.conv_impl` in brackets if it is another.
    """
    used = build.implementation(model)
    return used if used == model.conv_impl else f"{used} (configured: {model.conv_impl})"


def training(config, batch, profiled=False):
    """Prepares a training step of the first phase, on a batch that is on the devices.

    Args:
      config: experiment config.
      batch: see `serving.serve`.
      profiled: whether the step is to be profiled.

    Returns:
      `(step, profile)`: a function that computes one step, and `Work.profile`, None unless `profiled`.
    """
    experiment = build.experiment(config)
    mapped = parallel.map_step(experiment.make_step(experiment.phases[0]))
    state, vgg16 = parallel.replicate(experiment.create_state()), parallel.replicate(experiment.vgg16_params)
    batch = next(parallel.prefetch([batch]))
    program = None if profiled else mapped

    def step():
        nonlocal state, program
        program = program or mapped.lower(state, batch, vgg16).compile()  # Has a text, unlike a mapped function.
        state, metrics = program(state, batch, vgg16)
        jax.block_until_ready((state, metrics))

    return step, (lambda count: profiling.largest(step, program.as_text(), count)) if profiled else None


def prediction(config, batch):
    """Returns a function that predicts a batch as evaluation does, without moving the result back to the host.

    Args:
      config: experiment config.
      batch: see `serving.serve`.
    """
    model = build.unet_model(config)
    predict = evaluator.compiled(model, config.train.pyramid_levels)
    variables = parallel.replicate(unet.prepared(build.initial_state(config).eval_variables, model.dtype))
    return lambda: jax.block_until_ready(predict(variables, batch["image"], batch["mask"]))


def random_vgg16() -> dict[str, np.ndarray]:
    """Returns VGG16 weights drawn from He's distribution, in the layout of `vgg.load`; trained ones cost the same."""
    rng, arrays, inputs = np.random.default_rng(0), {}, 3
    for name, outputs in (layer for layer in vgg.LAYERS if layer is not None):
        kernel = rng.normal(0, np.sqrt(2 / (9 * inputs)), (3, 3, inputs, outputs))
        arrays |= {f"{name}/kernel": kernel.astype(np.float32), f"{name}/bias": np.zeros(outputs, np.float32)}
        inputs = outputs
    return arrays | {"order": "RGB", "scale": 1.0, "mean": np.zeros(3), "std": np.ones(3)}


def convolution(dtype: str, batch: int, size: int, channels: int) -> Callable:
    """Returns a function that computes the large convolution once, for `serving.serve`.

    Args:
      dtype: "float32" or "bfloat16".
      batch: number of examples.
      size: pixels per side.
      channels: number of input and of output channels.
    """
    x, kernel = jnp.ones((batch, size, size, channels), dtype), jnp.ones((3, 3, channels, channels), dtype)

    @jax.jit
    def compiled(x, kernel):
        return dispatch.ordinary_conv(x, kernel, 1, "onednn")

    return lambda: jax.block_until_ready(compiled(x, kernel))


def device_peak_mib():
    """Returns the largest memory of the first device so far in MiB; None on a CPU, which does not report it."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else None


if __name__ == "__main__":
    serving.serve(make, convolution)
