"""Flax modules that own the parameters of a layer and call `pconv_jax.ops`. Layout `[N, H, W, C]`, mask 1 = valid."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from pconv_jax.ops import decoder, half_padded, mask_update, partial_conv, windows
from pconv_jax.ops.cpu import dispatch

CONV_TYPES = ("partial", "zero", "mask_channel", "gated")
NORM_TYPES = ("batch", "masked_batch", "group", "none")


def kaiming(key, shape, dtype=jnp.float32):
    """Draws weights of He et al. 2015: those of Flax's `variance_scaling(2.0, "fan_in", "normal")`, up to rounding.

    They are drawn as a vector: XLA takes a second to compile a draw of four dimensions, and a network has many shapes.

    Args:
      key: JAX random key.
      shape: shape of the kernel, output channels last.
      dtype: dtype of the weights.

    Returns:
      Normally distributed weights of variance 2 / fan-in, not truncated.
    """
    variance = jnp.array(2.0 / math.prod(shape[:-1]), dtype)
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape) * jnp.sqrt(variance)


class PartialConv(nn.Module):
    """Partial convolution as a Flax layer, with the attributes and parameters of `flax.linen.Conv`.

    It takes and returns a mask beside the features, and is `partial_conv` with parameters of its own:

        class Filler(nn.Module):
            @nn.compact
            def __call__(self, x, mask):
                x, mask = pconv_jax.PartialConv(16, 5, strides=2)(x, mask)
                x, mask = pconv_jax.PartialConv(32, 3)(nn.relu(x), mask)
                return x, mask

    Without a mask everything is valid, and what lies outside the image is the only hole: partial convolution based
    padding (arXiv 1811.11718).

    Attributes:
      features: output channels.
      kernel_size: extent of the kernel, one for all spatial axes or one per axis (one to three).
      strides: strides of the window, one for all axes or one per axis.
      padding: "SAME", "VALID", or `(low, high)` per spatial axis; the padding is hole.
      kernel_dilation: dilation of the kernel (atrous), one for all axes or one per axis.
      feature_group_count: number of groups of a grouped convolution.
      use_bias: whether to add a bias where the output is valid.
      dtype: dtype of the computation; None: that to which `x` and the parameters are promoted.
      param_dtype: dtype of the parameters.
      precision: precision of the products, as in `lax.conv_general_dilated`.
      kernel_init: initialiser of the kernel; by default normal of variance 2 / fan-in (He et al. 2015).
      bias_init: initialiser of the bias.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: windows.Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Callable[..., jax.Array] = kaiming
    bias_init: Callable[..., jax.Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x, mask=None, *, group_sizes=None):
        """Convolves the valid features and updates the mask.

        Args:
          x: features `[N, *S, C]`.
          mask: `[N, *S, G]`, 1 valid, 0 hole; `G` is 1, `C`, `feature_group_count` or `len(group_sizes)`. None:
            everything is valid.
          group_sizes: channels per mask channel, e.g. `(64, 3)` for features concatenated from 64 and 3 channels with
            different holes.

        Returns:
          `(y, mask)`: features `[N, *T, features]` with 0 in the remaining holes, and the float32 mask for the next
          layer, `[N, *T, 1]`, or `[N, *T, feature_group_count]` for a grouped convolution.

        Raises:
          ValueError: a rank, shape, group size or (outside jit) mask value does not fit; the message names it.
        """
        spatial = (self.kernel_size,) * (jnp.ndim(x) - 2) if isinstance(self.kernel_size, int) else self.kernel_size
        shape = (*spatial, jnp.shape(x)[-1] // self.feature_group_count, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return partial_conv.partial_conv(
            x,
            mask,
            kernel,
            bias,
            strides=self.strides,
            padding=self.padding,
            dilation=self.kernel_dilation,
            feature_group_count=self.feature_group_count,
            group_sizes=group_sizes,
            precision=self.precision,
        )


class Conv(nn.Module):
    """A convolution of the type under study, with half padding and, in the decoder, upsampling and a skip.

    Attributes:
      features: output channels.
      kernel_size: odd extent of the square kernel.
      stride: 1 or 2.
      use_bias: False where a normalisation with its own shift follows.
      conv_type: "partial" (paper, section 3.1); "zero" or "mask_channel", an ordinary convolution (the two differ in
        the input of the network); "gated", an ordinary convolution times a learned sigmoid gate (Yu et al. 2019,
        arXiv 1806.03589), with twice the parameters.
      dtype: dtype of the computation; parameters are float32.
      impl: implementation, one of `dispatch.IMPLS`; all are equal up to rounding.
      mask_update: for "partial", one of `ops.mask_update.RULES`.
      zero: start with a kernel of zeros, for a layer whose output is added to something.
      variant: differences from the paper, for "partial"; the other types follow `crop` alone.
    """

    features: int
    kernel_size: int
    stride: int = 1
    use_bias: bool = True
    conv_type: str = "partial"
    dtype: jnp.dtype = jnp.float32
    impl: str = "auto"
    mask_update: str = "shrink"
    zero: bool = False
    variant: half_padded.Variant = half_padded.PAPER

    @nn.compact
    def __call__(self, x, mask, skip=None, skip_mask=None):
        """Applies the convolution, in the decoder after upsampling `x` by two and concatenating `skip`.

        Args:
          x: features `[N, H, W, C]`.
          mask: `[N, H, W, 1]`; None for all types but "partial".
          skip: features `[N, 2 H, 2 W, D]` of the encoder, or None; with `variant.crop` one row or column less is fine.
          skip_mask: mask of `skip`; None for all types but "partial".

        Returns:
          `(y, mask)`; the mask is None for all types but "partial".
        """
        outputs = self.features * (2 if self.conv_type == "gated" else 1)
        inputs = x.shape[-1] + (0 if skip is None else skip.shape[-1])
        shape = (self.kernel_size, self.kernel_size, inputs, outputs)
        kernel = self.param("kernel", nn.initializers.zeros if self.zero else kaiming, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (outputs,)) if self.use_bias else None
        if self.conv_type == "partial":
            if skip is not None:
                y, updated = dispatch.decoder_conv(x, mask, skip, skip_mask, kernel, bias, self.impl, self.variant)
                previous = skip_mask  # the skip has the finer mask of the two
            else:
                y, updated = dispatch.conv(x, mask, kernel, bias, self.stride, self.impl, self.variant)
                previous = mask_update.centres(mask, self.stride)
            return y, mask_update.update(updated, previous, self.mask_update)
        x = x if skip is None else decoder.up_concat(x, skip, crop=self.variant.crop)
        y = dispatch.ordinary_conv(x, kernel, self.stride, self.impl)
        if bias is not None:
            y = y + bias.astype(y.dtype)
        if self.conv_type == "gated":
            y, gate = jnp.split(y, 2, axis=-1)
            y = y * jax.nn.sigmoid(gate)
        return y, None


class Norm(nn.Module):
    """A normalisation chosen by name; statistics and affine parameters are float32 whatever `dtype` is.

    Attributes:
      norm_type: "batch"; "masked_batch", batch normalisation over valid positions (`MaskedBatchNorm`, with the same
        variables); "group", with up to 32 groups; "none", the identity.
      momentum: momentum of the running statistics of batch normalisation.
      axis_name: mapped axis over which batch normalisation is synchronised in training.
      dtype: dtype of the result.
    """

    norm_type: str = "batch"
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, mask, *, train):
        """Normalises features.

        Args:
          x: features `[N, H, W, C]`.
          mask: `[N, H, W, 1]`, read by "masked_batch" only.
          train: use the statistics of the batch and update the running ones; False: use the running statistics.

        Returns:
          The normalised features, in the shape of `x`.
        """
        batch = {
            "use_running_average": not train,
            "momentum": self.momentum,
            "axis_name": self.axis_name if train else None,
            "dtype": self.dtype,
            "name": "batch",
        }
        if self.norm_type == "batch":
            return nn.BatchNorm(**batch)(x)
        if self.norm_type == "masked_batch":
            return MaskedBatchNorm(**batch)(x, mask)
        if self.norm_type == "group":
            groups = max(g for g in range(1, min(32, x.shape[-1]) + 1) if x.shape[-1] % g == 0)
            return nn.GroupNorm(num_groups=groups, dtype=self.dtype, name="group")(x)
        return x


class MaskedBatchNorm(nn.Module):
    """Batch normalisation by the statistics of valid positions: the zeros in holes do not count.

    Attributes and variables are those of `flax.linen.BatchNorm`, which it equals where everything is valid. Where no
    device has a valid position, the running statistics stay as they are and the result is the shift alone.
    """

    use_running_average: bool
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, mask):
        """Normalises features.

        Args:
          x: features `[N, H, W, C]`; values in holes do not matter.
          mask: `[N, H, W, 1]`, 1 valid, 0 hole.

        Returns:
          The normalised features, in the shape of `x`.
        """
        channels = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        valid = mask != 0
        x = jnp.where(valid, x.astype(jnp.float32), 0)
        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            count = self._total(valid.astype(jnp.float32))
            mean = self._total(x) / jnp.maximum(count, 1)
            var = self._total(jnp.where(valid, (x - mean) ** 2, 0)) / jnp.maximum(count, 1)
            if not self.is_initializing():
                for running, value in ((running_mean, mean), (running_var, var)):
                    average = self.momentum * running.value + (1 - self.momentum) * value
                    running.value = jnp.where(count > 0, average, running.value)
        y = (x - mean) * (scale * lax.rsqrt(var + self.epsilon)) + bias
        return y.astype(self.dtype)

    def _total(self, x):
        """Returns the sum over positions, images and devices per channel."""
        total = jnp.sum(x, axis=(0, 1, 2))
        synchronised = self.axis_name is not None and not self.is_initializing()
        return lax.psum(total, self.axis_name) if synchronised else total
