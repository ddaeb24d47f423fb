"""One layer of the U-Net as work for a worker: what the network calls, on random features, compiled by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax.benchmark import operations
from pconv_jax.ops import decoder, partial_conv
from pconv_jax.ops.cpu import dispatch


def call(config, batch, name, part):
    """A function without arguments that computes a part (`op.PARTS`) of a layer once."""
    layer = next(layer for layer in operations.layers(config.model, config.data.size) if layer.name == name)
    impl, count = config.model.conv_impl, len(batch["mask"])
    rng, masks = np.random.default_rng(0), _masks(config, batch)

    def random(size, channels):
        return jnp.asarray(rng.standard_normal((count, size, size, channels), np.float32), config.model.dtype)

    shape = (layer.kernel_size, layer.kernel_size, layer.low + layer.skip, layer.outputs)
    kernel = jnp.asarray(0.1 * rng.standard_normal(shape, np.float32), config.model.dtype)
    if layer.skip:
        inputs = random(layer.size // 2, layer.low), random(layer.size, layer.skip)
        seen = masks[layer.size // 2], masks[layer.size]
    else:
        inputs, seen = random(layer.size * 2, layer.low), masks[layer.size * 2]

    def apply(inputs, seen, kernel):
        if layer.skip:
            (low, skip), (low_mask, skip_mask) = inputs, seen
            return dispatch.decoder_conv(low, low_mask, skip, skip_mask, kernel, None, impl)[0]
        return dispatch.conv(inputs, seen, kernel, None, layer.stride, impl)[0]

    def input_gradient(inputs, seen, kernel, dy):
        return jax.vjp(lambda inputs: apply(inputs, seen, kernel), inputs)[1](dy)

    def kernel_gradient(inputs, seen, kernel, dy):
        return jax.vjp(lambda kernel: apply(inputs, seen, kernel), kernel)[1](dy)

    dy = random(layer.size, layer.outputs)
    functions = {
        "forward": (apply, (inputs, seen, kernel)),
        "input gradient": (input_gradient, (inputs, seen, kernel, dy)),
        "kernel gradient": (kernel_gradient, (inputs, seen, kernel, dy)),
        "mask": (functools.partial(_coverage, layer), (seen,)),
    }
    function, arguments = functions[part]
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


def all_masks(config, batch):
    """The coverage of every layer in one program."""
    layers, masks = operations.layers(config.model, config.data.size), _masks(config, batch)

    @jax.jit
    def compiled(masks):
        return [
            _coverage(layer, (masks[layer.size // 2], masks[layer.size]) if layer.skip else masks[2 * layer.size])
            for layer in layers
        ]

    return lambda: jax.block_until_ready(compiled(masks))


def _masks(config, batch):
    """The masks of the encoder by size, from the image down."""
    mask = jnp.asarray(batch["mask"], jnp.float32)
    masks = {config.data.size: mask}
    for layer in operations.layers(config.model, config.data.size)[: config.model.depth]:
        mask = partial_conv.propagate_mask(mask, _window(layer), strides=2, padding=_half(layer))
        masks[layer.size] = mask
    return masks


def _coverage(layer, seen):
    mask, groups = (decoder.up_concat(*seen), (layer.low, layer.skip)) if layer.skip else (seen, (layer.low,))
    return partial_conv.coverage(mask, _window(layer), (layer.stride, layer.stride), _half(layer), groups)


def _window(layer):
    return layer.kernel_size, layer.kernel_size


def _half(layer):
    return ((layer.kernel_size // 2,) * 2,) * 2
