"""Every config key, with the paper's choice where the paper makes one. Experiments start here and change a few keys.

    python -m pconv_jax.main --config=experiments/default.py --config.data.size=256 --config.model.depth=7

At 512 x 512 and batch 6 the paper trained for ten days on one V100. For photographs of your own, start from folder.py;
on a machine without a GPU, from quickstart.py.
"""

import ml_collections


def get_config():
    """Returns the config of a run. training/validation.py has the rule of each key."""
    config = ml_collections.ConfigDict()
    config.name = "default"  # the run directory is runs/<name>, unless --workdir is given
    config.seed = 0  # seed of initial parameters, order, crops and masks
    config.init_from = ""  # a run directory, or one of its checkpoints/<step>, that gives the initial parameters

    config.data = ml_collections.ConfigDict()
    config.data.source = "photos"  # photos (in scikit-image's wheel) | folder | tfds | netcdf (grids of the earth)
    config.data.path = ""  # folder: directory of images, searched at any depth; netcdf: files, with commas or wildcards
    config.data.eval_path = ""  # the same for evaluation; empty: a part of data.path is held out
    config.data.eval_fraction = 0.1  # fraction held out, of files by a hash of their names, or the last time steps
    config.data.variable = ""  # netcdf: variable, or several with commas, as channels; empty where a file has one
    config.data.channel_axis = ""  # netcdf: axis of the variable, e.g. of levels, whose entries are channels
    config.data.grid = ()  # netcdf: cells of latitude and longitude, which replace data.size
    config.data.name = ""  # tfds: a dataset that tools/prepare_tfds.py has prepared, e.g. celeb_a
    config.data.image_feature = "image"  # tfds: the feature that holds the image
    config.data.dir = ""  # tfds: directory of prepared datasets; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets
    config.data.train_split = "train"  # tfds: a split or a part of one, e.g. train[:90%]
    config.data.eval_split = "validation"  # tfds: a split without records of train_split
    config.data.max_pixels = 100_000_000  # pixels of an image; larger images are skipped without decoding them
    config.data.size = 512  # pixels per side of an example
    config.data.crop_scale = (0.5, 1.0)  # side of a random crop, as a fraction of the image's shorter side
    config.data.flip = True  # flips examples horizontally at random
    config.data.rotate = False  # turns examples by a random multiple of 90 degrees
    config.data.permute_channels = False  # puts red, green and blue in a random order: variety for small sets
    config.data.cache = False  # keeps decoded images in memory; only for small sets
    config.data.threads = 2  # threads that prepare batches
    config.data.workers = 0  # processes that prepare batches; 0: threads only

    config.masks = ml_collections.ConfigDict()
    config.masks.kind = "strokes"  # shapes | strokes | boxes | mixed (data/elements.py has all) | folder | netcdf
    config.masks.area = (0.01, 0.6)  # range of the hole area, as a fraction of the image
    config.masks.border = 0.0  # frame without holes, as a fraction of the side (0.04: the paper's "border constraint")
    config.masks.path = ""  # folder: directory of mask images; netcdf: file whose missing cells are holes
    config.masks.variable = ""  # netcdf: variable of that file; empty where it has one
    config.masks.polarity = "white_hole"  # folder: white_hole | black_hole
    config.masks.augment = True  # folder: dilate, rotate, shift, crop and flip the masks at random

    config.model = ml_collections.ConfigDict()
    config.model.kind = "partial"  # partial | zero | mask_channel | gated
    config.model.mask_update = "shrink"  # with kind partial: shrink (the paper's) | keep | vanish (ops/mask_update.py)
    config.model.depth = 8  # downsampling stages; data.size is a multiple of 2 ** depth
    config.model.width = 64  # channels of the first layer, doubled per level ...
    config.model.max_width = 512  # ... up to this number
    config.model.kernels = (7, 5, 5, 3)  # kernel sizes of the encoder's layers; the last one for all deeper ones
    config.model.channels = 3  # channels of the images: 3 for RGB, 1 for grey; of grids, any number
    config.model.norm = "batch"  # batch | masked_batch (both synchronised over devices) | group | none
    config.model.center = False  # subtracts the mean of the valid pixels from the input and adds it to the output
    config.model.momentum = 0.9  # decay per step of batch normalisation's running statistics
    config.model.guess = False  # takes a guess for the hole, the result at half the size; with train.pyramid_levels
    config.model.remat = False  # computes features again in the backward pass, VGG16's too: less memory, slower
    config.model.dtype = "float32"  # type of the features, VGG16's too: float32 | bfloat16
    config.model.conv_impl = "auto"  # auto | onednn (opt-in, for CPUs: docs/training.md) | xla; equal up to rounding

    # For grids, and weights that others trained (docs/importing_weights.md). Each default is the paper's choice.
    config.model.negative_slope = 0.2  # slope of the decoder's leaky ReLU below zero
    config.model.first_norm = False  # normalises in the first layer, too
    config.model.norm_bias = False  # adds a bias also in layers with a normalisation
    config.model.padding = "hole"  # hole | circular (the width wraps around, as longitude does)
    config.model.any_size = False  # accepts sizes that are not multiples of 2 ** depth
    config.model.input_mean = ()  # mean per channel, subtracted from the image; (): none
    config.model.input_std = ()  # standard deviation per channel, by which the image is divided; (): none
    config.model.soft_mask = False  # weights pixels by mask values between 0 and 1; masks drawn here are 0 or 1
    config.model.renormalise_twice = False  # multiplies the last layer's result by sum(1) / sum(M) twice

    config.loss = ml_collections.ConfigDict()
    config.loss.weights = ml_collections.ConfigDict()
    config.loss.weights.valid = 1.0
    config.loss.weights.hole = 6.0
    config.loss.weights.perceptual = 0.05
    config.loss.weights.style_out = 120.0
    config.loss.weights.style_comp = 120.0
    config.loss.weights.tv = 0.1
    config.loss.weights.log_mse = 0.0  # not the paper's: PSNR over the hole, as a loss
    config.loss.style_warmup_steps = 0  # steps over which the weights of the style terms rise from zero; 0: none
    config.loss.area_weights = False  # netcdf: weights cells by their area, the cosine of latitude
    config.loss.vgg16_weights = ""  # npz of VGG16 (models/vgg.py); empty: no perceptual and style terms

    config.optim = ml_collections.ConfigDict()
    config.optim.name = "adam"  # adam | muon (orthogonal updates of the kernels; the rest by Adam)
    config.optim.lr = 2e-4  # learning rate
    config.optim.schedule = (
        "constant"  # constant | cosine | trapezoid (constant, then linear); the last two end at zero
    )
    config.optim.cooldown_steps = 0  # trapezoid: steps over which the rate falls to zero, the last ones of train.steps
    config.optim.warmup_steps = 0  # steps of a linear warm-up from zero
    config.optim.clip_norm = 0.0  # largest global norm of the gradient; 0: no clipping
    config.optim.b1 = 0.9  # this and the next two are Adam's
    config.optim.b2 = 0.999
    config.optim.eps = 1e-8
    config.optim.ema = 0.0  # decay per step of the averaged parameters that evaluation uses; 0: no average

    config.train = ml_collections.ConfigDict()
    config.train.steps = 500_000  # steps of the first phase; 0: no first phase
    config.train.pyramid_levels = 0  # levels of an image pyramid that is filled from coarse to fine; 0: the image alone
    config.train.batch_size = 6  # examples per step, over all devices
    config.train.accumulate = 1  # parts of a device's batch, computed one after another: less memory, slow on a CPU
    config.train.matmul_precision = "default"  # of float32 convolutions: default (GPU: TF32) | tensorfloat32 | float32
    config.train.log_every = 100  # steps between log lines
    config.train.checkpoint_every = 5_000  # steps between checkpoints; the network is evaluated at each
    config.train.max_to_keep = 3  # newest checkpoints to keep, beside the best
    config.train.sample_every = 1_000  # steps between image grids
    config.train.samples = 6  # examples on an image grid

    config.finetune = ml_collections.ConfigDict()  # the second phase
    config.finetune.steps = 50_000  # steps of the second phase, after train.steps; 0: no second phase
    config.finetune.lr = 5e-5  # learning rate of the second phase, constant
    config.finetune.freeze_statistics = True  # the encoder's batch norm uses its running statistics, unchanged
    config.finetune.freeze_affine = True  # freezes scale and shift of the encoder's normalisation

    config.eval = ml_collections.ConfigDict()
    config.eval.examples = 240  # pairs of a crop and a mask; the six hole-area buckets alternate
    config.eval.buckets = True  # False: masks of any hole area, as they are drawn, not in six buckets
    config.eval.native = False  # cuts data.size pixels of the photograph without resizing; crop_scale is not used then
    config.eval.crop_scale = (0.5, 1.0)  # as data.crop_scale, but separate, so that runs are compared on the same crops
    config.eval.batch_size = 8  # examples per batch
    config.eval.seed = 0  # seed of crops and masks, separate from config.seed for the same reason
    config.eval.masks = ml_collections.ConfigDict()
    config.eval.masks.kind = "strokes"
    config.eval.masks.border = 0.0
    config.eval.masks.path = ""
    config.eval.masks.variable = ""
    config.eval.masks.polarity = "white_hole"
    config.eval.masks.augment = False
    return config
