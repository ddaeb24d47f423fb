"""Measures what each choice of the method contributes: a baseline, and variants that change one thing each.

    ./launch.sh sweep experiments/ablation.py
    ./launch.sh sweep experiments/ablation.py --variants=zero --config.data.source=folder --config.data.path=DIR
    python -m pconv_jax.main --config=experiments/ablation.py --workdir=runs/baseline        # only the baseline

The baseline is the paper's method at 64 x 64 on the photographs in scikit-image's wheel: partial convolution, batch
normalisation, both phases, L1 and total variation; perceptual and style terms with loss.vgg16_weights. A centred input,
3x3 kernels, clipping, rotations and colour permutations make up for the small size and the few photographs. `--smoke`
runs everything at toy size. Overrides apply to all variants; a variant that equals the baseline is left out.
"""

from experiments import default
from pconv_jax.ops import losses

SEEDS = (0, 1, 2)
SMOKE = {
    "data.size": 32,
    "model.depth": 2,
    "model.width": 8,
    "model.max_width": 32,
    "train.batch_size": 8,
    "train.steps": 40,
    "train.log_every": 5,
    "train.checkpoint_every": 20,
    "train.sample_every": 1000,
    "train.samples": 4,
    "finetune.steps": 10,
    "optim.warmup_steps": 5,
    "eval.examples": 24,
    "eval.batch_size": 8,
}
SMOKE_SEEDS = (0, 1)


def get_config():
    """Returns the baseline."""
    config = default.get_config()
    config.name = "ablation"
    config.data.size = 64
    config.data.crop_scale = (0.25, 1.0)
    config.data.rotate = True
    config.data.permute_channels = True
    config.data.cache = True
    config.model.depth = 4
    config.model.width = 32
    config.model.max_width = 128
    config.model.kernels = (3,)
    config.model.center = True
    config.optim.lr = 1e-3
    config.optim.warmup_steps = 50
    config.optim.clip_norm = 1.0
    config.train.batch_size = 16
    config.train.steps = 1600
    config.train.log_every = 50
    config.train.checkpoint_every = 400
    config.train.sample_every = 2000
    config.finetune.steps = 400
    config.finetune.lr = 2.5e-4  # a quarter of the first phase's, as in the paper
    config.eval.examples = 96
    config.eval.crop_scale = (0.25, 1.0)
    config.eval.batch_size = 16
    return config


def get_variants(config):
    """Returns the variants of a baseline, `{group: {name: overrides, or the reason why it is left out}}`."""
    return {
        "convolution": {kind: _kind(config, kind) for kind in ("partial", "zero", "mask_channel", "gated")},
        "mask update": {f"mask_{rule}": _partial(config, "mask_update", rule) for rule in ("shrink", "keep", "vanish")},
        "loss": {f"no_{term}": _without(config, term) for term in config.loss.weights},
        "normalisation": {
            "norm_batch": {"model.norm": "batch"},
            "norm_masked": _partial(config, "norm", "masked_batch"),
            "norm_group": {"model.norm": "group"},
            "norm_none": {"model.norm": "none"},
        },
        "phases": {
            "one_phase": {"train.steps": config.train.steps + config.finetune.steps, "finetune.steps": 0},
            "unfrozen": {"finetune.freeze_statistics": False, "finetune.freeze_affine": False},
        },
        "training masks": {
            f"on_{kind}": {"masks.kind": kind, "masks.path": ""} for kind in ("strokes", "shapes", "boxes")
        },
        "size": {
            "depth_less": _depth(config, config.model.depth - 1),
            "depth_more": _depth(config, config.model.depth + 1),
            "width_half": {"model.width": config.model.width // 2, "model.max_width": config.model.max_width // 2},
            "width_double": {"model.width": config.model.width * 2, "model.max_width": config.model.max_width * 2},
        },
        "input": {"no_center": {"model.center": False}},
    }


def _kind(config, kind):
    if kind != "partial" and config.model.norm == "masked_batch":
        return "model.norm=masked_batch needs partial convolutions"
    return {"model.kind": kind, "model.mask_update": config.model.mask_update if kind == "partial" else "shrink"}


def _partial(config, key, value):
    if config.model.kind != "partial":
        return f"only partial convolutions have a mask, and model.kind is {config.model.kind}"
    return {f"model.{key}": value}


def _without(config, term):
    if term in losses.FEATURE_TERMS and not config.loss.vgg16_weights:
        return "the term is off in all variants: it needs loss.vgg16_weights (tools.prepare_vgg16 makes the file)"
    return {f"loss.weights.{term}": 0.0}


def _depth(config, depth):
    if depth < 1 or config.data.size % 2**depth:
        return f"data.size={config.data.size} cannot be halved {depth} times" if depth else "one level is the least"
    return {"model.depth": depth}
