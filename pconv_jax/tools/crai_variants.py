"""Recognises the networks of climatereconstructionAI that cannot be imported, and says why."""

import itertools
import re
from collections.abc import Mapping

import numpy as np

from pconv_jax import errors

# Parts of a tensor's name that only such networks have, with the reason why they are refused.
_FOREIGN = {
    r"recurrent|lstm|gru": "it has recurrent layers over time steps (lstm_steps or gru_steps)",
    r"attention": "it has an attention module for further data (attention)",
}


def check(tensors: Mapping[str, np.ndarray]):
    """Checks that a network is a plain U-Net of partial convolutions, whatever its depth, widths and kernels.

    Args:
      tensors: tensors by name.

    Raises:
      UserError: it has other parts, or other connections; the message names them.
    """
    for pattern, reason in _FOREIGN.items():
        if any(re.search(pattern, name) for name in tensors):
            raise errors.UserError(f"{reason}, which is not imported: only plain U-Nets are")
    shapes = {"encoder": {}, "decoder": {}}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(encoder|decoder)\.(\d+)\.partial_conv\.input_conv\.weight", name)
        if match and tensor.ndim == 4:
            shapes[match[1]][int(match[2])] = tensor.shape
    encoder, decoder = ([part[index] for index in sorted(part)] for part in shapes.values())
    if not encoder or len(encoder) != len(decoder):
        return  # The tensors that are missing are listed where they are converted.
    if decoder[-1][0] != encoder[0][1]:
        raise errors.UserError(
            f"it takes {encoder[0][1]} channels and returns {decoder[-1][0]} (further data, or several time steps as "
            "channels), which is not imported: only networks that return the channels they take are"
        )
    for level, (before, after) in enumerate(itertools.pairwise(encoder), 1):
        if after[1] != before[0]:
            raise errors.UserError(f"further data enter at encoder.{level} (channel fusion), which is not imported")
        if after[0] not in (before[0], 2 * before[0]):
            raise errors.UserError(
                f"encoder.{level} has {after[0]} channels after {before[0]}; only networks whose channels double, or "
                "stay the same, are imported"
            )
    if len(encoder) > 1 and decoder[0][1] == encoder[-1][0]:
        raise errors.UserError("it has no skip connections (skip_layers), which is not imported")
    if f"decoder.{len(decoder) - 1}.partial_conv.bn.weight" in tensors:
        raise errors.UserError("its last layer is normalised, which is not imported (disable_first_last_bn)")
