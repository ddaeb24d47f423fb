"""The worker that computes with pconv_jax, by the functions that training and evaluation use."""

import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax.benchmark import operations, serving, single_layer
from pconv_jax.evaluation import evaluator
from pconv_jax.models import vgg
from pconv_jax.ops.cpu import dispatch
from pconv_jax.training import build, parallel, phases, steps, train_state


def make(subject, config, batch, options) -> serving.Work:
    """`serving.serve` calls this. Options: a type other than the config's; of a layer, its name and the part of it."""
    config.model.dtype = options.get("dtype", config.model.dtype)
    with tempfile.TemporaryDirectory() as directory:
        settings = ""
        if config.loss.vgg16_weights == operations.RANDOM_VGG16:
            config.loss.vgg16_weights = os.path.join(directory, "vgg16.npz")
            np.savez(config.loss.vgg16_weights, **random_vgg16())
            settings = ", random VGG16 weights"
        step = {
            "train": lambda: training(config, batch),
            "forward": lambda: prediction(config, batch),
            "layer": lambda: single_layer.call(config, batch, options["layer"], options["part"]),
            "masks": lambda: single_layer.all_masks(config, batch),
        }[subject]()
    devices = f", {jax.device_count()} devices" if jax.device_count() > 1 else ""
    settings = f"conv_impl {config.model.conv_impl}, {config.model.dtype}{devices}{settings}"
    return serving.Work(step, settings, device_peak_mib, jax.default_backend() == "cpu")


def training(config, batch):
    """One training step of the first phase per call, on a batch that lies on the devices."""
    features, vgg16 = build.vgg16_features(config)
    mapped = parallel.map_step(steps.from_config(config, features, phases.from_config(config)[0]))
    now, vgg16 = parallel.replicate(train_state.from_config(config)), parallel.replicate(vgg16)
    batch = next(parallel.prefetch([batch]))

    def step():
        nonlocal now
        now, metrics = mapped(now, batch, vgg16)
        jax.block_until_ready((now, metrics))

    return step


def prediction(config, batch):
    """What evaluation does with a batch, without moving the result back."""
    predict = evaluator.compiled(config)
    variables = parallel.replicate(build.variables(config, train_state.from_config(config)))
    return lambda: jax.block_until_ready(predict(variables, batch["image"], batch["mask"]))


def random_vgg16() -> dict[str, np.ndarray]:
    """Arrays in the layout of `vgg.load`, of He et al.'s distribution: as costly as trained ones."""
    rng, arrays, inputs = np.random.default_rng(0), {}, 3
    for name, outputs in (layer for layer in vgg.LAYERS if layer is not None):
        kernel = rng.normal(0, np.sqrt(2 / (9 * inputs)), (3, 3, inputs, outputs))
        arrays |= {f"{name}/kernel": kernel.astype(np.float32), f"{name}/bias": np.zeros(outputs, np.float32)}
        inputs = outputs
    return arrays | {"order": "RGB", "scale": 1.0, "mean": np.zeros(3), "std": np.ones(3)}


def convolution(dtype, batch, size, channels):
    """`serving.serve` calls this."""
    x, kernel = jnp.ones((batch, size, size, channels), dtype), jnp.ones((3, 3, channels, channels), dtype)

    @jax.jit
    def compiled(x, kernel):
        return dispatch.ordinary_conv(x, kernel, 1, "onednn")

    return lambda: jax.block_until_ready(compiled(x, kernel))


def device_peak_mib():
    """Of the first device; None on a CPU, which tells nothing."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else None


if __name__ == "__main__":
    serving.serve(make, convolution)
