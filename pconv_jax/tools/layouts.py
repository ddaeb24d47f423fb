"""Describes checkpoints of other projects' networks of partial convolutions, and converts them to our variables.

All of them are U-Nets with the same layers as ours. A layout therefore consists of the names of the tensors, a scale of
the kernels, and options of `unet.UNet`. Sizes follow from the tensors. Two operators occur: the paper's, and one that
never multiplies by sum(1), `y = (W * (x M)) / sum(M) + b`. Dividing its kernels by sum(1) = k k C makes both equal.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pconv_jax import errors
from pconv_jax.inpainting import weights_file
from pconv_jax.models import unet
from pconv_jax.tools import crai_variants

_ONES = "all ones: the operator counts valid values itself"
_COUNTER = "a counter of training steps, which inference does not use"
_IMAGENET = {"input_mean": (0.485, 0.456, 0.406), "input_std": (0.229, 0.224, 0.225)}
_PLUS_MINUS_ONE = {"input_mean": (0.5, 0.5, 0.5), "input_std": (0.5, 0.5, 0.5)}
_NORM = {
    "weight": "params/{}/norm/batch/scale",
    "bias": "params/{}/norm/batch/bias",
    "running_mean": "batch_stats/{}/norm/batch/mean",
    "running_var": "batch_stats/{}/norm/batch/var",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of a checkpoint's tensors, and the options with which our network computes the same.

    Attributes:
      origin: address of the repository.
      licence: licence of the repository, as far as it states one.
      prefix: returns the text before the names of a layer's tensors, from ("enc" or "dec", level from 1, depth).
      weight: the rest of the kernel's name.
      bias: the rest of the bias's name.
      ones: the rest of the name of the kernel that sums the mask, which is all ones; None: the layout has none.
      norm: the rest of the names of batch normalisation's tensors, before e.g. `running_mean`.
      biased: layers whose bias the file holds; None: all.
      scaled: whether the operator never multiplies by sum(1).
      bgr: whether the channels of images are in the order blue, green, red.
      max_depth: number of downsampling stages that the network uses; the file may have more.
      options: options of `unet.UNet`.
      ignored: for further tensors, the reason why each is not used, by regular expression of their names.
      about: a sentence for people who use the weights, or an empty text.
      check: takes the tensors and raises UserError for networks of another kind under such names; None: no check.
    """

    origin: str
    licence: str
    prefix: Callable[[str, int, int], str]
    weight: str = "conv.weight"
    bias: str = "conv.bias"
    ones: str | None = None
    norm: str = "bn."
    biased: tuple[str, ...] | None = ("dec1",)
    scaled: bool = False
    bgr: bool = False
    max_depth: int = 12
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    about: str = ""
    check: Callable[[Mapping[str, np.ndarray]], None] | None = None


LAYOUTS = {
    "mmagic": Layout(
        "github.com/open-mmlab/mmagic",
        "Apache-2.0",
        lambda part, level, depth: f"generator.{part}oder.{part}{level}.",
        ones="conv.weight_mask_updater",
        biased=("enc1", "dec1"),
        bgr=True,
        options=_PLUS_MINUS_ONE,
        ignored={r"(loss_|disc)\w*\..*": "a loss or a discriminator, which only training needs"},
    ),
    "naoto0804": Layout(
        "github.com/naoto0804/pytorch-inpainting-with-partial-conv",
        "MIT",
        lambda part, level, depth: f"{part}_{level}.",
        weight="conv.input_conv.weight",
        bias="conv.input_conv.bias",
        ones="conv.mask_conv.weight",
        scaled=True,
        options=_IMAGENET,
        about="It was trained with soft masks and leaves artefacts along the rims of hard ones.",
    ),
    "crai": Layout(
        "github.com/FREVA-CLINT/climatereconstructionAI",
        "BSD-3-Clause",
        lambda part, level, depth: f"{part}oder.{level - 1 if part == 'enc' else depth - level}.partial_conv.",
        weight="input_conv.weight",
        bias="input_conv.bias",
        ones="mask_conv.weight",
        scaled=True,
        options={"negative_slope": 0.01, "padding": "circular", "any_size": True},
        about="The file does not record the padding: circular is assumed; --padding=hole is for networks without it.",
        check=crai_variants.check,
    ),
    "tanimutomo": Layout(
        "github.com/tanimutomo/partialconv",
        "none stated",
        lambda part, level, depth: f"{part}_{level}.",
        max_depth=7,
        options={"renormalise_twice": True},
        ignored={r"(enc|dec)_8\..*": "defined, but the network uses seven stages"},
    ),
    "xyfjason": Layout(
        "github.com/xyfJASON/partialconv-inpainting-pytorch",
        "none stated",
        lambda part, level, depth: f"encoder{level}." if part == "enc" else f"decoder{level}.partial_conv.",
        bias="bias",
        ones="mask_conv_weight",
        norm="norm.",
        biased=None,
        options={**_PLUS_MINUS_ONE, "norm_bias": True},
    ),
}


def recognise(names) -> str:
    """Returns the name of the layout to which tensors belong.

    Args:
      names: names of the tensors.

    Raises:
      UserError: no layout has such names.
    """
    for name, layout in LAYOUTS.items():
        if layout.prefix("enc", 1, 1) + layout.weight in names:
            return name
    first = ", ".join(sorted(names)[:3])
    raise errors.UserError(f"its tensors ({first}, ..) are of no known layout; known are {', '.join(LAYOUTS)}")


def section(layout: Layout, tensors: Mapping[str, np.ndarray], padding: str | None = None) -> dict[str, Any]:
    """Returns the section `model` of a config that describes the network, with sizes that follow from the tensors.

    Args:
      layout: layout of the tensors.
      tensors: tensors by name, including the kernel of the first layer.
      padding: an option of `unet.UNet`; None for the layout's.

    Raises:
      UserError: a kernel does not have four axes.
    """
    kernels = []
    while len(kernels) < layout.max_depth:
        name = layout.prefix("enc", len(kernels) + 1, 1) + layout.weight
        if name not in tensors:
            break
        kernels.append(tensors[name].shape)
        if len(kernels[-1]) != 4:
            raise errors.UserError(f"{name} has shape {kernels[-1]}; needs four axes")
    normed = [
        any(name.startswith(layout.prefix("enc", level, 1) + layout.norm) for name in tensors) for level in (1, 2)
    ]
    options = {
        "kind": "partial",
        "mask_update": "shrink",
        "depth": len(kernels),
        "width": kernels[0][0],
        "max_width": max(shape[0] for shape in kernels),
        "kernels": [shape[2] for shape in kernels],
        "channels": kernels[0][1],
        "norm": "batch" if any(normed) else "none",
        "first_norm": normed[0],
        "center": False,
        "momentum": 0.9,
        "remat": False,
        "dtype": "float32",
        "conv_impl": "auto",
        **layout.options,
    }
    return {**options, "padding": padding} if padding else options


@dataclasses.dataclass
class Converted:
    """The variables of a converted network, and a record of how every tensor was used.

    Attributes:
      variables: variables by their names in a weights file (`weights_file`).
      used: number of tensors that the variables come from.
      ignored: names of the other tensors, by the reason why they are not needed.
      zero: names of variables that the source lacks and that are 0 there.
    """

    variables: dict[str, np.ndarray]
    used: int
    ignored: dict[str, list[str]]
    zero: list[str]


def convert(layout: Layout, tensors: Mapping[str, np.ndarray], model: unet.UNet) -> Converted:
    """Converts the tensors of a checkpoint to the variables of our network.

    Args:
      layout: layout of the tensors.
      tensors: tensors by name.
      model: the network that `section` describes.

    Returns:
      The variables and an account of every tensor.

    Raises:
      UserError: tensors are missing, have another shape, are not finite, or are not known; all are listed.
    """
    expected, problems = weights_file.shapes(model), []
    converted, left = Converted({}, 0, {}, []), set(tensors)

    def ignore(name, reason):
        left.discard(name)
        converted.ignored.setdefault(reason, []).append(name)

    def take(name, target, change=lambda array: array):
        if name not in tensors:
            problems.append(f"{name} is missing")
            return
        left.discard(name)
        array = tensors[name]
        wanted = expected[target]
        theirs = tuple(wanted[axis] for axis in (3, 2, 0, 1)) if len(wanted) == 4 else wanted
        if array.shape != theirs:
            problems.append(f"{name} has shape {array.shape}; needs {theirs}")
        elif array.dtype.kind != "f" or not np.isfinite(array).all():
            problems.append(f"{name} is not finite, or {array.dtype}")
        else:
            converted.variables[target] = np.ascontiguousarray(change(array), np.float32)
            converted.used += 1

    for part, level in [(part, level) for part in ("enc", "dec") for level in range(1, model.depth + 1)]:
        layer, prefix = f"{part}{level}", layout.prefix(part, level, model.depth)
        kernel, bias = f"params/{layer}/conv/kernel", f"params/{layer}/conv/bias"
        take(prefix + layout.weight, kernel, lambda array, layer=layer: _kernel(layout, model, layer, array))
        if bias in expected:
            if layout.biased is None or layer in layout.biased:
                take(prefix + layout.bias, bias, lambda array, layer=layer: _bias(layout, layer, array))
            else:
                converted.variables[bias] = np.zeros(expected[bias], np.float32)
                converted.zero.append(bias)
        if layout.ones and prefix + layout.ones in tensors:
            if (tensors[prefix + layout.ones] == 1).all():
                ignore(prefix + layout.ones, _ONES)
            else:
                problems.append(f"{prefix + layout.ones} is not all ones: its operator counts values in another way")
                left.discard(prefix + layout.ones)
        if _NORM["weight"].format(layer) in expected:
            for name, target in _NORM.items():
                take(f"{prefix}{layout.norm}{name}", target.format(layer))
            if f"{prefix}{layout.norm}num_batches_tracked" in tensors:
                ignore(f"{prefix}{layout.norm}num_batches_tracked", _COUNTER)
    for pattern, reason in layout.ignored.items():
        for name in [name for name in sorted(left) if re.fullmatch(pattern, name)]:
            ignore(name, reason)
    problems += [f"{name} belongs to no layer" for name in sorted(left)]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise errors.UserError("; ".join(problems[:8]) + more)
    return converted


def _kernel(layout, model, layer, array):
    """Returns a kernel [O, I, k, k] in our order [k, k, I, O], our scale, and with red first."""
    kernel = array.astype(np.float64).transpose(2, 3, 1, 0)
    if layout.scaled:
        kernel = kernel / np.prod(kernel.shape[:3])
    if layout.bgr and layer == "enc1":
        kernel = kernel[:, :, ::-1]
    if layout.bgr and layer == "dec1":
        skip = kernel.shape[2] - model.channels
        kernel = np.concatenate([kernel[:, :, :skip], kernel[:, :, skip:][:, :, ::-1]], axis=2)[..., ::-1]
    return kernel


def _bias(layout, layer, array):
    """Returns a bias with red first."""
    return array[::-1] if layout.bgr and layer == "dec1" else array
