"""The two phases of a run (Liu et al. 2018, section 4.2): their steps, and the parameters that they freeze.

Holes distort the statistics of batch normalisation. The second phase continues at a lower learning rate with the
encoder's normalisation frozen, while the decoder's is still trained. Without it colours shift.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp

_ENCODER_NORM = re.compile(r"enc\d+/norm/")


@dataclasses.dataclass(frozen=True)
class Phase:
    """The steps from `start` to `stop - 1`, counted from the beginning of the run.

    Attributes:
      name: name of the phase in the log.
      start: number of steps before this phase.
      stop: number of steps after this phase.
      freeze_statistics: whether the encoder normalises by its running statistics and leaves them unchanged.
      freeze_affine: whether scale and shift of the encoder's normalisation stay unchanged.
    """

    name: str
    start: int
    stop: int
    freeze_statistics: bool = False
    freeze_affine: bool = False

    def mask_frozen(self, tree):
        """Returns gradients or updates, a tree like the parameters, with zeros for the frozen parameters.

        Not by optax's `partition` or `freeze`: inside the optimizer they would change the tree of its state, and so
        the checkpoints; outside they take as many lines.
        """
        if not self.freeze_affine:
            return tree

        def mask(path, leaf):
            frozen = _ENCODER_NORM.match(jax.tree_util.keystr(path, simple=True, separator="/"))
            return jnp.zeros_like(leaf) if frozen else leaf

        return jax.tree_util.tree_map_with_path(mask, tree)


def make(steps: int, finetune_steps: int, *, freeze_statistics: bool, freeze_affine: bool) -> tuple[Phase, ...]:
    """Returns the phases that have at least one step, in order.

    Args:
      steps: number of steps of the first phase.
      finetune_steps: number of steps of the second phase.
      freeze_statistics: as in `Phase`, for the second phase.
      freeze_affine: as in `Phase`, for the second phase.
    """
    both = (
        Phase("training", 0, steps),
        Phase("fine-tuning", steps, steps + finetune_steps, freeze_statistics, freeze_affine),
    )
    return tuple(phase for phase in both if phase.stop > phase.start)
