"""Networks of others with random weights: their checkpoints' names, and what they compute, in PyTorch.

The names and operators are those of the repositories that tools/layouts.py lists. Only the widths are smaller. Masks
have as many channels as the features, and are summed by a convolution with ones, as all of them do it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclasses.dataclass(frozen=True)
class Other:
    """A network of others.

    Attributes:
      prefix: returns the text before the names of a layer's tensors, from (part, level).
      weight, bias, ones, norm: names of a layer's tensors; None where it has none.
      biased: layers with a bias.
      operator: "paper", "unscaled" (never multiplies by sum(1)) or "twice" (multiplies by the ratio after the bias).
      kernels: kernel sizes of the encoder.
      affine: mean and standard deviation of the input.
      bgr: whether channels are in the order blue, green, red.
      channels: channels of images.
      slope: of the decoder's leaky ReLU.
      circular: whether the width wraps around.
      first_norm: whether the first layer is normalised.
      nest: makes the content of the checkpoint of the state dict.
      width, max_width: channels of the first layer, doubled per level up to the largest number.
    """

    prefix: Callable[[str, int], str]
    nest: Callable[[dict], object]
    weight: str = "conv.weight"
    bias: str = "conv.bias"
    ones: str | None = None
    norm: str | None = "bn."
    biased: tuple[str, ...] | None = ("dec1",)
    operator: str = "paper"
    kernels: tuple[int, ...] = (7, 5, 5, 3, 3, 3, 3)
    affine: tuple = ((0.0,), (1.0,))
    bgr: bool = False
    channels: int = 3
    slope: float = 0.2
    circular: bool = False
    first_norm: bool = False
    width: int = 4
    max_width: int = 8

    def layers(self):
        """Yields `(layer, prefix, inputs, outputs, kernel size, stride)` of all layers."""
        depth = len(self.kernels)
        widths = [self.channels] + [min(self.width * 2**level, self.max_width) for level in range(depth)]
        for level, kernel in enumerate(self.kernels, 1):
            yield f"enc{level}", self.prefix("enc", level), widths[level - 1], widths[level], kernel, 2
        for level in reversed(range(1, depth + 1)):
            inputs = widths[level] + widths[level - 1]
            yield f"dec{level}", self.prefix("dec", level), inputs, widths[level - 1], 3, 1

    def normed(self, layer):
        """Returns whether a layer is normalised."""
        return self.norm is not None and layer != "dec1" and (layer != "enc1" or self.first_norm)


def _labelled(state):
    return {"labels": ["500", "1000"], "stat_target": None, "1000": {"n_iter": 1000, "model": state, "optimizer": {}}}


NETWORKS = {
    "mmagic": Other(
        lambda part, level: f"generator.{part}oder.{part}{level}.",
        lambda state: {"meta": {"iter": 10, "config": "text"}, "state_dict": state},
        ones="conv.weight_mask_updater",
        biased=("enc1", "dec1"),
        affine=HALF,
        bgr=True,
    ),
    "naoto0804": Other(
        lambda part, level: f"{part}_{level}.",
        lambda state: {"n_iter": 7, "model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        weight="conv.input_conv.weight",
        bias="conv.input_conv.bias",
        ones="conv.mask_conv.weight",
        operator="unscaled",
        affine=IMAGENET,
    ),
    "crai": Other(
        lambda part, level: f"{part}oder.{level - 1 if part == 'enc' else 3 - level}.partial_conv.",
        _labelled,
        weight="input_conv.weight",
        bias="input_conv.bias",
        ones="mask_conv.weight",
        operator="unscaled",
        kernels=(7, 5, 5),
        channels=1,
        slope=0.01,
        circular=True,
        first_norm=True,
    ),
    "tanimutomo": Other(
        lambda part, level: f"{part}_{level}.", lambda state: {"model": state}, norm=None, operator="twice"
    ),
    "xyfjason": Other(
        lambda part, level: f"encoder{level}." if part == "enc" else f"decoder{level}.partial_conv.",
        lambda state: {"model": state},
        bias="bias",
        ones="mask_conv_weight",
        norm="norm.",
        biased=None,
        kernels=(7, 5, 5, 3, 3, 3, 3, 3),
        affine=HALF,
    ),
}


def crai(kernels: tuple[int, ...], **changes) -> Other:
    """Returns a network of climatereconstructionAI of another depth, padding, normalisation or number of channels.

    Args:
      kernels: kernel sizes of the encoder.
      **changes: other attributes that change.
    """

    def prefix(part, level):
        return f"{part}oder.{level - 1 if part == 'enc' else len(kernels) - level}.partial_conv."

    return dataclasses.replace(NETWORKS["crai"], prefix=prefix, kernels=kernels, **changes)


def state(other):
    """Returns random tensors by the names of a network's state dict, float32, from a fixed seed."""
    rng, tensors = np.random.default_rng(0), {}
    for layer, prefix, inputs, outputs, kernel, _ in other.layers():
        shape, scale = (outputs, inputs, kernel, kernel), (2 / (inputs * kernel**2)) ** 0.5
        gain = inputs * kernel**2 if other.operator == "unscaled" else 1
        tensors[prefix + other.weight] = rng.normal(0, scale * gain, shape)
        if other.biased is None or layer in other.biased:
            tensors[prefix + other.bias] = rng.normal(0, 0.1, outputs)
        if other.ones:
            tensors[prefix + other.ones] = np.ones(shape)
        if other.normed(layer):
            for name in ("weight", "running_var"):
                tensors[f"{prefix}{other.norm}{name}"] = rng.uniform(0.5, 1.5, outputs)
            for name in ("bias", "running_mean"):
                tensors[f"{prefix}{other.norm}{name}"] = rng.normal(0, 0.2, outputs)
            tensors[f"{prefix}{other.norm}num_batches_tracked"] = np.array(9)
    return {name: x if x.dtype.kind == "i" else x.astype(np.float32) for name, x in tensors.items()}


def apply(torch, other, tensors, image, mask):
    """Computes a network in inference, in float64.

    Args:
      torch: the module.
      other: one of `NETWORKS`.
      tensors: as `state` returns them.
      image: `[N, H, W, C]` in RGB; holes are 0.
      mask: `[N, H, W, 1]`.

    Returns:
      `(outputs of every layer by name, final output in the units of the image)`, as NumPy arrays `[N, H, W, C]`; with
      blue first the output of `dec1` is turned round.
    """
    F = torch.nn.functional
    tensors = {name: torch.from_numpy(np.asarray(x, np.float64)) for name, x in tensors.items()}
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in other.affine)
    x = torch.from_numpy(np.asarray(image, np.float64).transpose(0, 3, 1, 2))
    m = torch.from_numpy(np.asarray(mask, np.float64).transpose(0, 3, 1, 2)).expand(x.shape)
    x = (x - mean) / std * m
    x = x.flip(1) if other.bgr else x
    outputs, skips = {}, []
    for layer, prefix, _, _, kernel, stride in other.layers():
        if layer.startswith("enc"):
            skips.append((x, m))
        else:
            skip, skip_mask = skips.pop()
            x = torch.cat([F.interpolate(x, size=skip.shape[2:]), skip], 1)
            m = torch.cat([F.interpolate(m, size=skip.shape[2:]), skip_mask], 1)
        x, m = _operator(torch, other, tensors, prefix, x, m, kernel, stride)
        if other.normed(layer):
            values = [tensors[f"{prefix}{other.norm}{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
            x = F.batch_norm(x, *values, eps=1e-5)
        if layer != "dec1":
            x = F.leaky_relu(x, 0.0 if layer.startswith("enc") else other.slope)
        outputs[layer] = (x.flip(1) if other.bgr and layer == "dec1" else x).numpy().transpose(0, 2, 3, 1)
    x = x.flip(1) if other.bgr else x
    return outputs, (x * std + mean).numpy().transpose(0, 2, 3, 1)


def _operator(torch, other, tensors, prefix, x, m, kernel, stride):
    """Returns the partial convolution of a network and its mask, with as many channels as the features."""
    F = torch.nn.functional
    weight, bias = tensors[prefix + other.weight], tensors.get(prefix + other.bias)
    half = kernel // 2
    if other.circular:
        x, m = (F.pad(a, (half, half, 0, 0), mode="circular") for a in (x, m))
    padding = (half, 0 if other.circular else half)
    raw = F.conv2d(x * m, weight, stride=stride, padding=padding)
    sums = F.conv2d(m, torch.ones_like(weight), stride=stride, padding=padding)
    valid = (sums > 0).to(x.dtype)
    offset = 0 if bias is None else bias[:, None, None]
    if other.operator == "unscaled":
        return (raw / sums.masked_fill(sums == 0, 1) + offset) * valid, valid
    ratio = weight[0].numel() / (sums + 1e-8) * valid
    y = raw * ratio + offset
    if other.operator == "twice" and bias is not None:
        return y * ratio, valid
    return y * valid, valid
