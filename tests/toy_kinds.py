"""Registers a source and a loss term of its own, and trains two steps with them in the directory of the argument."""

import sys

import jax.numpy as jnp

import pictures
from pconv_jax.data import sources
from pconv_jax.ops import losses


class Noise(pictures.MemorySource):
    """Images of noise in memory, with what the record of a run's data needs."""

    def fingerprint(self):
        """Returns what data.json records."""
        return f"{len(self)} images of noise"


def noise(data):
    """Returns three images to train on and two others to evaluate on."""
    encoded = [pictures.encode(pictures.noise(seed)) for seed in range(5)]
    return Noise(tuple(encoded[:3])), Noise(tuple(encoded[3:]))


def main(workdir):
    """Trains two steps."""
    sources.SOURCES["noise"] = sources.Kind(noise)
    losses.IMAGE_TERMS["mean"] = lambda output, target, mask, composite, weight: jnp.mean(jnp.abs(composite - target))

    import runs  # after the registration: it imports the rules of the config
    from pconv_jax import train
    from pconv_jax.training import validation

    config = runs.tiny(**{"data.source": "noise", "train.steps": 2})
    with config.unlocked():
        config.loss.weights.mean = 0.5
    validation.validate(config)
    train.train(config, workdir)


if __name__ == "__main__":
    main(sys.argv[1])
