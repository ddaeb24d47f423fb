"""Every key, with the paper's choices where the paper makes one. Experiments start from here and change a few keys.

    python -m pconv_jax.main --config=experiments/default.py --config.data.size=256 --config.model.depth=7

At 512 x 512 and batch 6 the paper trained for ten days on one V100: on photographs of your own start from folder.py,
on a machine without a GPU from quickstart.py.
"""

import ml_collections


def get_config():
    """The config of a run; training/validation.py holds the rule of each key."""
    config = ml_collections.ConfigDict()
    config.name = "default"  # runs/<name> is the run directory unless --workdir says otherwise
    config.seed = 0  # of initial parameters, order, crops and masks
    config.init_from = ""  # a run directory, or one of its checkpoints/<step>, to take the parameters from

    config.data = ml_collections.ConfigDict()
    config.data.source = "photos"  # photos (in scikit-image's wheel) | folder | tfds
    config.data.path = ""  # folder: directory of images, searched at any depth
    config.data.eval_path = ""  # folder: directory of evaluation images; empty: hold out a part of data.path
    config.data.eval_fraction = 0.1  # of the files, held out by a hash of their names
    config.data.name = ""  # tfds: a dataset that tools/prepare_tfds.py has prepared, e.g. celeb_a
    config.data.image_feature = "image"  # tfds: feature that holds the image
    config.data.dir = ""  # tfds: directory of prepared datasets; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets
    config.data.train_split = "train"  # tfds: a split or a part of one, e.g. train[:90%]
    config.data.eval_split = "validation"  # tfds: the same, apart from train_split
    config.data.max_pixels = 100_000_000  # of an image; larger ones are skipped before they are decoded
    config.data.size = 512  # pixels per side of an example
    config.data.crop_scale = (0.5, 1.0)  # side of a random crop, as a fraction of the image's shorter side
    config.data.flip = True  # horizontally, at random
    config.data.rotate = False  # by a random multiple of 90 degrees
    config.data.permute_channels = False  # red, green and blue in a random order: variety for small sets
    config.data.cache = False  # keep decoded images in memory (small sets only)
    config.data.threads = 2  # that prepare batches
    config.data.workers = 0  # processes that prepare batches; 0: threads only

    config.masks = ml_collections.ConfigDict()
    config.masks.kind = "strokes"  # shapes | strokes | boxes | folder
    config.masks.area = (0.01, 0.6)  # hole area, fraction of the image
    config.masks.border = 0.0  # frame without holes, fraction of the side (0.04: the paper's "border constraint")
    config.masks.path = ""  # folder: directory of mask images
    config.masks.polarity = "white_hole"  # folder: white_hole | black_hole
    config.masks.augment = True  # folder: dilate, rotate, shift, crop, flip

    config.model = ml_collections.ConfigDict()
    config.model.kind = "partial"  # partial | zero | mask_channel | gated
    config.model.mask_update = "shrink"  # of partial: shrink (the paper's) | keep | vanish (ops/mask_update.py)
    config.model.depth = 8  # downsampling stages; data.size is a multiple of 2 ** depth
    config.model.width = 64  # channels of the first layer, doubled per level ..
    config.model.max_width = 512  # .. up to this
    config.model.kernels = (7, 5, 5, 3)  # windows of the encoder's layers; the last serves all deeper ones
    config.model.channels = 3  # of the images: 3 RGB, 1 grey
    config.model.norm = "batch"  # batch | masked_batch (both synchronised over devices) | group | none
    config.model.center = False  # subtract the mean of the valid pixels from the input, add it to the output
    config.model.momentum = 0.9  # of batch normalisation's running statistics
    config.model.remat = False  # compute features again in the backward pass, VGG16's too: less memory, slower
    config.model.dtype = "float32"  # of the features, VGG16's too: float32 | bfloat16
    config.model.conv_impl = "auto"  # auto | onednn (opt-in, for CPUs: docs/training.md) | xla; equal up to rounding

    config.loss = ml_collections.ConfigDict()
    config.loss.weights = ml_collections.ConfigDict()
    config.loss.weights.valid = 1.0
    config.loss.weights.hole = 6.0
    config.loss.weights.perceptual = 0.05
    config.loss.weights.style_out = 120.0
    config.loss.weights.style_comp = 120.0
    config.loss.weights.tv = 0.1
    config.loss.style_warmup_steps = 0  # over which the weights of style rise from zero; 0: full from the start
    config.loss.vgg16_weights = ""  # npz of VGG16 (models/vgg.py); empty: no perceptual and style terms

    config.optim = ml_collections.ConfigDict()
    config.optim.lr = 2e-4  # Adam
    config.optim.schedule = "constant"  # constant | cosine (to zero at train.steps)
    config.optim.warmup_steps = 0  # linear from zero
    config.optim.clip_norm = 0.0  # of the global gradient; 0: no clipping
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.eps = 1e-8
    config.optim.ema = 0.0  # decay per step of averaged parameters, which evaluation uses; 0: none

    config.train = ml_collections.ConfigDict()
    config.train.steps = 500_000  # of the first phase; 0: none
    config.train.batch_size = 6  # over all devices
    config.train.accumulate = 1  # parts of a device's batch, computed one after another: less memory (on a CPU slow)
    config.train.log_every = 100  # steps
    config.train.checkpoint_every = 5_000  # steps; the network is evaluated at each checkpoint
    config.train.max_to_keep = 3  # newest checkpoints, beside the best
    config.train.sample_every = 1_000  # steps between sample sheets
    config.train.samples = 6  # examples on a sample sheet

    config.finetune = ml_collections.ConfigDict()  # the second phase
    config.finetune.steps = 50_000  # after train.steps; 0: none
    config.finetune.lr = 5e-5  # constant
    config.finetune.freeze_statistics = True  # of the encoder's batch normalisation: the running ones, held still
    config.finetune.freeze_affine = True  # scale and shift of the encoder's normalisation

    config.eval = ml_collections.ConfigDict()
    config.eval.examples = 240  # pairs of a crop and a mask, the six hole-area buckets in turn
    config.eval.crop_scale = (0.5, 1.0)  # as data.crop_scale, apart from it so that runs are compared on the same
    config.eval.batch_size = 8
    config.eval.seed = 0  # of crops and masks, apart from config.seed so that runs are compared on the same
    config.eval.masks = ml_collections.ConfigDict()
    config.eval.masks.kind = "strokes"
    config.eval.masks.border = 0.0
    config.eval.masks.path = ""
    config.eval.masks.polarity = "white_hole"
    config.eval.masks.augment = False
    return config
