"""Tests of the initial state, the learning-rate schedule and the optimizer."""

import jax
import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, {0: 2e-4, 50: 2e-4, 100: 2e-4}),
        ("constant", 10, {0: 0.0, 5: 1e-4, 10: 2e-4, 100: 2e-4}),
        ("cosine", 0, {0: 2e-4, 50: 1e-4, 100: 0.0}),
        ("cosine", 20, {0: 0.0, 10: 1e-4, 20: 2e-4, 60: 1e-4, 100: 0.0}),
        ("trapezoid", 0, {0: 2e-4, 60: 2e-4, 80: 1e-4, 100: 0.0}),
        ("trapezoid", 20, {0: 0.0, 10: 1e-4, 20: 2e-4, 60: 2e-4, 70: 1.5e-4, 100: 0.0}),
    ],
)
def test_learning_rate(schedule, warmup, expected):
    """The schedules have hand-computed values at a rate of 2e-4 over 100 steps."""
    changes = {"optim.schedule": schedule, "optim.warmup_steps": warmup, "optim.lr": 2e-4, "train.steps": 100}
    changes["optim.cooldown_steps"] = 40
    rate = build.learning_rate(runs.tiny(**changes))
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-10), step


def test_learning_rate_of_the_second_phase():
    """The rate is 5e-5 from the first step of the second phase on, whatever the schedule of the first phase."""
    for schedule in ("constant", "cosine"):
        changes = {"optim.schedule": schedule, "optim.lr": 2e-4, "train.steps": 100, "finetune.steps": 50}
        rate = build.learning_rate(runs.tiny(**changes))
        assert float(rate(0)) == pytest.approx(2e-4)
        assert [float(rate(step)) for step in (100, 149)] == pytest.approx([5e-5, 5e-5])
    rate = build.learning_rate(runs.tiny(**{"train.steps": 0, "finetune.steps": 50, "finetune.lr": 1e-5}))
    assert float(rate(0)) == pytest.approx(1e-5)


def test_clipping():
    """A large gradient is scaled to the norm before Adam gets it, and a norm of 0 clips nothing."""
    gradient = {"w": np.array([30.0, 40.0], np.float32)}
    moments = {}
    for clip in (0.0, 5.0):
        adam = build.optimizer(runs.tiny(**{"optim.clip_norm": clip}))
        _, after = adam.update(gradient, adam.init(gradient), gradient)
        moments[clip] = next(
            s.mu["w"] for s in jax.tree.leaves(after, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
        )
    np.testing.assert_allclose(moments[0.0], [3.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(moments[5.0], [0.3, 0.4], rtol=1e-6)
