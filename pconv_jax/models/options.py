"""Options of the U-Net that exclude each other."""

from typing import Any

from pconv_jax import errors

PADDINGS = ("hole", "circular")


def check(options: Any, conv_type: str):
    """Checks options of the network that exclude each other.

    Args:
      options: a `unet.UNet`, or the section `model` of a config.
      conv_type: the type of convolution, which a config calls `kind`.

    Raises:
      UserError: two options exclude each other; the message names both.
    """
    if conv_type != "partial" and (options.padding != "hole" or options.renormalise_twice or options.soft_mask):
        raise errors.UserError(
            f'padding is "{options.padding}", renormalise_twice {options.renormalise_twice} and soft_mask '
            f'{options.soft_mask} with kind "{conv_type}"; only "partial" has them: use padding "hole" and False'
        )
    if options.soft_mask and options.renormalise_twice:
        raise errors.UserError("soft_mask and renormalise_twice are both set; no network has both: choose one")
    mean, std = tuple(options.input_mean), tuple(options.input_std)
    if {len(mean), len(std)} not in ({0}, {options.channels}):
        raise errors.UserError(
            f"input_mean is {mean} and input_std {std}; needs {options.channels} values in both, one per channel, or "
            "none"
        )
    if std and getattr(options, "guess", False):
        raise errors.UserError("input_std is set and the network takes a guess: leave input_mean and input_std empty")
