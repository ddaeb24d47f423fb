"""The two phases of a run (Liu et al. 2018, section 4.2): where each starts and ends, and what it holds still.

Holes pollute the statistics of batch normalisation. The second phase goes on at a lower learning rate with the
encoder's normalisation frozen and the decoder's alive; without it colours shift.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp

_ENCODER_NORM = re.compile(r"enc\d+/norm/")


@dataclasses.dataclass(frozen=True)
class Phase:
    """Steps `start .. stop - 1`, counted from the beginning of the run.

    Attributes:
      name: for the log.
      freeze_statistics: the encoder normalises by its running statistics, which stay as they are.
      freeze_affine: scale and shift of the encoder's normalisation stay as they are.
    """

    name: str
    start: int
    stop: int
    freeze_statistics: bool = False
    freeze_affine: bool = False

    def moving(self, tree):
        """A tree like the parameters, of gradients or updates, with zeros for what this phase holds still."""
        if not self.freeze_affine:
            return tree

        def hold(path, leaf):
            frozen = _ENCODER_NORM.match(jax.tree_util.keystr(path, simple=True, separator="/"))
            return jnp.zeros_like(leaf) if frozen else leaf

        return jax.tree_util.tree_map_with_path(hold, tree)


def from_config(config) -> list[Phase]:
    """The phases with at least one step, in order."""
    first, second = config.train.steps, config.finetune.steps
    phases = [
        Phase("training", 0, first),
        Phase("fine-tuning", first, first + second, config.finetune.freeze_statistics, config.finetune.freeze_affine),
    ]
    return [phase for phase in phases if phase.stop > phase.start]
