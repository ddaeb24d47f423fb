"""The U-Net as slow loops in NumPy and float64, with the options in which networks of others differ from the paper."""

import numpy as np

import loops


def apply(variables, image, mask, *, slope=0.2, circular=False, mean=0.0, std=1.0, twice=False):
    """Computes the network in inference, one layer after another.

    Args:
      variables: as `unet.UNet` names them, with batch normalisation where a layer has statistics.
      image: `[N, H, W, C]`; values in holes do not matter.
      mask: `[N, H, W, 1]`.
      slope: of the decoder's leaky ReLU.
      circular: the width wraps around.
      mean, std: of the input, per channel.
      twice: the last layer's result is multiplied by sum(1) / sum(M) after the bias as well.

    Returns:
      `(output, mask)`.
    """
    params, statistics = variables["params"], variables.get("batch_stats", {})
    depth = len(params) // 2
    x, skips = np.where(mask != 0, (np.asarray(image, np.float64) - mean) / std, 0), []
    for level in range(1, depth + 1):
        skips.append((x, mask))
        x, mask = _conv(x, mask, params[f"enc{level}"]["conv"], 2, (x.shape[-1],), circular)
        x = np.maximum(_norm(x, f"enc{level}", params, statistics), 0)
    for level in range(depth, 0, -1):
        skip, skip_mask = skips.pop()
        low, low_mask = (_to_size(a, skip.shape[1:3]) for a in (x, mask))
        both, masks = np.concatenate([low, skip], -1), np.concatenate([low_mask, skip_mask], -1)
        sizes = (low.shape[-1], skip.shape[-1])
        conv = params[f"dec{level}"]["conv"]
        x, mask = _conv(both, masks, conv, 1, sizes, circular)
        x = _norm(x, f"dec{level}", params, statistics)
        x = np.where(x < 0, slope * x, x) if level > 1 else x
        if level == 1 and twice:
            x = x * _ratio(masks, sizes, conv["kernel"].shape[0], circular)
    return x * std + mean, mask


def _conv(x, mask, conv, stride, sizes, circular):
    """Returns a partial convolution with half padding; a circular width is repeated beforehand."""
    half = conv["kernel"].shape[0] // 2
    pads = ((half, half), (half, half))
    if circular:
        columns = np.arange(-half, x.shape[2] + half) % x.shape[2]
        x, mask, pads = x[:, :, columns], mask[:, :, columns], ((half, half), (0, 0))
    arrays = (np.asarray(a) for a in (x, mask, conv["kernel"]))
    return loops.partial_conv(*arrays, conv.get("bias"), (stride, stride), pads, (1, 1), 1, sizes)


def _ratio(masks, sizes, window, circular):
    """Returns sum(1) / sum(M) of each window of stride 1, `[N, H, W, 1]`; 1 where nothing is valid."""
    valid, half = masks @ np.asarray(sizes, np.float64), window // 2
    rows, columns = valid.shape[1:]
    ratio = np.ones((*valid.shape, 1))
    for n, i, j in np.ndindex(valid.shape):
        total = 0
        for a, b in np.ndindex(window, window):
            row, column = i + a - half, j + b - half
            if 0 <= row < rows and (circular or 0 <= column < columns):
                total += valid[n, row, column % columns]
        ratio[n, i, j] = window**2 * sum(sizes) / total if total else 1
    return ratio


def _norm(x, name, params, statistics):
    """Returns batch normalisation by running statistics, where the layer has it."""
    if name not in statistics:
        return x
    running, affine = statistics[name]["norm"]["batch"], params[name]["norm"]["batch"]
    scale = np.asarray(affine["scale"], np.float64) / np.sqrt(np.asarray(running["var"], np.float64) + 1e-5)
    return (x - np.asarray(running["mean"])) * scale + np.asarray(affine["bias"])


def _to_size(x, size):
    """Returns nearest-neighbour upsampling: output row i is input row floor(i * rows in / rows out)."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, x.shape[1:3], strict=True))
    return x[:, rows][:, :, columns]
