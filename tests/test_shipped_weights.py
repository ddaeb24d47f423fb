"""The weights that the package contains: small, described, and better than the fillers of OpenCV."""

import json
import os
import pathlib

import numpy as np
import safetensors
import skimage.data

from pconv_jax.data import masks
from pconv_jax.evaluation import baselines
from pconv_jax.inpainting import inpainter, weights_file

CARD = pathlib.Path(__file__).resolve().parents[1] / "docs" / "model_card.md"


def test_the_file_is_small_and_its_card_names_it():
    """At most 10 MB, with a licence and credits; the model card has the SHA-256 of exactly these weights."""
    assert os.path.getsize(weights_file.PRETRAINED) <= 10_000_000
    weights = weights_file.read(weights_file.PRETRAINED)
    with safetensors.safe_open(weights_file.PRETRAINED, framework="numpy") as file:
        recorded = json.loads(file.metadata()[weights_file.KEY])["variables_sha256"]
    assert recorded == weights_file.sha256(weights.variables) and recorded in CARD.read_text()
    assert weights.about["licence"] and "photograph_credits.tsv" in weights.about["credits"]
    assert weights.settings is not None


def test_they_fill_better_than_opencv():
    """On photographs that they were not trained on, by the mean PSNR over holes of three sizes."""
    fill, errors = inpainter.Inpainter.pretrained(), {"network": [], "Telea": [], "Navier-Stokes": []}
    photographs = skimage.data.chelsea(), skimage.data.coffee(), skimage.data.astronaut()
    for index, photograph in enumerate(photographs):
        image = np.ascontiguousarray(photograph[40:232, 100:292])
        mask = masks.draw(
            masks.Family("strokes", ((0.05, 0.1), (0.2, 0.3), (0.4, 0.5))[index]), 0, 0, index, (192, 192)
        )
        filled = {name: baselines.BASELINES[name](image, mask) for name in ("Telea", "Navier-Stokes")}
        filled["network"], unseen = fill.fill(image, mask)
        assert unseen == 0
        for name, result in filled.items():
            errors[name].append(np.log10(np.mean((result.astype(float) - image) ** 2)))
    psnr = {name: -10 * np.mean(values) for name, values in errors.items()}
    assert psnr["network"] > max(psnr["Telea"], psnr["Navier-Stokes"]) + 0.3
