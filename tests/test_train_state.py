"""Tests of the initial state."""

import jax
import numpy as np

import runs
from pconv_jax.training import build


def test_the_state_is_a_function_of_the_seed():
    a, b, c = (build.initial_state(runs.tiny(seed=seed)) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(a.params["enc1"]["conv"]["kernel"], c.params["enc1"]["conv"]["kernel"])


def test_the_state_holds_arrays_only():
    """The state has step, parameters, statistics and optimizer state, and an average only if it is configured."""
    fresh = build.initial_state(runs.tiny())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(fresh))
    assert int(fresh.step) == 0 and fresh.ema is None
    averaged = build.initial_state(runs.tiny(**{"optim.ema": 0.9}))
    jax.tree.map(np.testing.assert_array_equal, averaged.ema, averaged.params)
    assert averaged.eval_variables["params"] is averaged.ema
    assert fresh.eval_variables["params"] is fresh.params
