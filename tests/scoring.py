"""Examples to score and records of scores for tests."""

import numpy as np

import pictures
from pconv_jax.evaluation import inputs, scores


def hole(height=20, width=24):
    """Returns a mask `[H, W, 1]` with a hole in the middle and one in the upper left corner: 54 of 480 pixels."""
    mask = np.ones((height, width, 1), np.uint8)
    mask[6:12, 8:16] = 0
    mask[:3, :2] = 0
    return mask


def example(index, channels=3, image=None, mask=None):
    """Returns an example of noise with a hole, or of the given arrays."""
    image = pictures.noise(index, 20, 24, channels) if image is None else image
    mask = np.roll(hole(), index, axis=1) if mask is None else mask
    origin = {"image": f"photo{index % 3}.png", "mask": f"0:{index}", "crop": f"0:{index}"}
    return inputs.describe(image, mask, index, origin)


def batches(count, batch_size, channels=3):
    """Returns batches as `inputs.batches` does."""
    for start in range(0, count, batch_size):
        yield [example(index, channels) for index in range(start, min(start + batch_size, count))]


def fake_network(batch_size, offset=0.0, everywhere=False):
    """Returns `(predict, calls)`: the truth plus an offset in the hole or everywhere; fails on another batch size."""
    calls = []

    def predict(variables, image, mask):
        assert len(image) == len(mask) == batch_size, "another shape than the compiled one"
        calls.append(variables)
        image = image.astype(np.float32) / 255
        return np.where((mask != 0) & (not everywhere), image, image + np.float32(offset)), None

    return predict, calls


def record(method, index, bucket, psnr, touching=False, **values):
    """Returns a record with the given scores."""
    rest = {"ssim": 0.5, "l1_percent": 1.0, "hole_psnr": psnr - 10, "raw_psnr": psnr - 5, **values}
    about = {"name": f"{index:05d}", "image": "a.png", "mask": f"0:{index}", "bucket": bucket, "hole_area": 0.05}
    result = {"method": method, **about, "touches_border": touching, "psnr": psnr, **rest}
    return {key: result[key] for key in ("method", *scores.ABOUT, *scores.METRICS)}
