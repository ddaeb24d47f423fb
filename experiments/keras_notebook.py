"""The evaluation of the Keras notebook that this project succeeds: 512 x 512 pixels, its masks, PSNR of the raw output.

    python -m pconv_jax.evaluate --config=experiments/keras_notebook.py --out=scores

With `--config.data.source=folder --config.data.path=DIR` on photographs of a folder, else on the quickstart's four.

The row "raw output" of the report is the notebook's figure (it reports 15.76 dB): the network's prediction of the whole
image, valid pixels included, against the photograph. The composite, which is what a user gets, scores far higher. The
picture shows masked, prediction, composite and original side by side.
"""

from experiments import default


def get_config():
    """Returns default.py's config with the notebook's size and masks; photographs are cut to a square and resized."""
    config = default.get_config()
    config.name = "keras_notebook"
    config.data.size = 512
    config.eval.examples = 48
    config.eval.crop_scale = (1.0, 1.0)
    config.eval.buckets = False
    config.eval.masks.kind = "notebook"
    return config
