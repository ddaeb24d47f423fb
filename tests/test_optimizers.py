"""Tests of the learning-rate schedules and of the optimizers."""

import jax
import numpy as np
import optax
import pytest

import runs
from pconv_jax.training import build, optimizers, validation


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
    rate = optimizers.learning_rate(runs.tiny(**changes))
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-10), step


def test_learning_rate_of_the_second_phase():
    """The rate is 5e-5 from the first step of the second phase on, whatever the schedule of the first phase."""
    for schedule in ("constant", "cosine"):
        changes = {"optim.schedule": schedule, "optim.lr": 2e-4, "train.steps": 100, "finetune.steps": 50}
        rate = optimizers.learning_rate(runs.tiny(**changes))
        assert float(rate(0)) == pytest.approx(2e-4)
        assert [float(rate(step)) for step in (100, 149)] == pytest.approx([5e-5, 5e-5])
    rate = optimizers.learning_rate(runs.tiny(**{"train.steps": 0, "finetune.steps": 50, "finetune.lr": 1e-5}))
    assert float(rate(0)) == pytest.approx(1e-5)


def test_clipping():
    """A large gradient is scaled to the norm before Adam gets it, and a norm of 0 clips nothing."""
    gradient = {"w": np.array([30.0, 40.0], np.float32)}
    moments = {}
    for clip in (0.0, 5.0):
        adam = optimizers.from_config(runs.tiny(**{"optim.clip_norm": clip}))
        _, after = adam.update(gradient, adam.init(gradient), gradient)
        moments[clip] = next(
            s.mu["w"] for s in jax.tree.leaves(after, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
        )
    np.testing.assert_allclose(moments[0.0], [3.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(moments[5.0], [0.3, 0.4], rtol=1e-6)


def test_muon_moves_kernels_along_orthogonal_matrices():
    """Muon's update of a kernel, as a matrix, has singular values of one size; Adam's has not."""
    config = runs.tiny(**{"optim.name": "muon", "optim.lr": 0.5})
    params = build.initial_state(config).params
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda value: rng.normal(size=value.shape).astype(np.float32), params)
    gradient["enc2"]["conv"]["kernel"][..., :2] *= 10  # two outputs with far larger gradients
    spread = {}
    for name in validation.OPTIMIZERS:
        optimizer = optimizers.from_config(runs.tiny(**{"optim.name": name, "optim.lr": 0.5}))
        update, _ = optimizer.update(gradient, optimizer.init(params), params)
        kernel = np.asarray(update["enc2"]["conv"]["kernel"])
        values = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)
        spread[name] = values.max() / values.min()
        if name == "muon":
            assert np.sqrt(np.mean(kernel**2)) == pytest.approx(0.5 * 0.2, rel=0.2)
    assert spread["muon"] < 2 < spread["adam"]


def test_muon_leaves_biases_and_the_last_layer_to_nadam():
    """All parameters but the kernels of the layers before the last are moved as Adam with Nesterov's momentum does."""
    config = runs.tiny(**{"optim.name": "muon", "optim.lr": 0.5})
    params = build.initial_state(config).params
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda value: rng.normal(size=value.shape).astype(np.float32), params)
    updates = []
    for optimizer in (optimizers.from_config(config), optax.nadam(0.5, b1=config.optim.b1, b2=config.optim.b2)):
        updates.append(optimizer.update(gradient, optimizer.init(params), params)[0])
    for (path, value), (_, expected) in zip(*map(jax.tree.leaves_with_path, updates), strict=True):
        where = jax.tree_util.keystr(path)
        if value.ndim < 4 or "dec1" in where:
            np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=where)
        else:
            assert not np.allclose(value, expected, rtol=0.1), where
