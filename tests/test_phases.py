"""Tests of the second phase: the encoder's normalisation is frozen, and all other parameters are trained."""

import jax
import numpy as np
import pytest

import runs
from test_steps import step_on


def test_phases_of_a_config():
    """Phases have the config's numbers of steps, and a phase without steps is left out."""
    both = runs.phases(runs.tiny(**{"train.steps": 5, "finetune.steps": 3}))
    assert [(p.start, p.stop) for p in both] == [(0, 5), (5, 8)]
    assert not both[0].freeze_statistics and not both[0].freeze_affine
    assert both[1].freeze_statistics and both[1].freeze_affine
    assert [(p.name, p.start, p.stop) for p in runs.phases(runs.tiny())] == [("training", 0, 4)]
    only = runs.phases(runs.tiny(**{"train.steps": 0, "finetune.steps": 3}))
    assert [(p.name, p.start, p.stop) for p in only] == [("fine-tuning", 0, 3)]


@pytest.fixture(scope="module")
def trained():
    """Returns the state after three steps of the first phase, in which statistics and momentum have changed."""
    config = runs.tiny(**{"finetune.steps": 10, "finetune.lr": 1e-3})
    return step_on(1, config, [runs.batch(config, k) for k in range(3)])[0]


def norm_leaves(state, part):
    """Returns scale, shift and statistics by path, of the normalisation of layers whose name starts with `part`."""
    result = {}
    for use in ("params", "batch_stats"):
        for path, leaf in jax.tree.leaves_with_path(getattr(state, use)):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if name.startswith(part) and "/norm/" in name:
                result[f"{use}/{name}"] = np.asarray(leaf)
    return result


@pytest.mark.parametrize(
    ("norm", "statistics", "affine"),
    [
        ("batch", True, True),
        ("batch", True, False),
        ("batch", False, True),
        ("batch", False, False),
        ("masked_batch", True, True),
        *(pytest.param("masked_batch", *frozen, marks=pytest.mark.slow) for frozen in ((True, False), (False, True))),
        pytest.param("masked_batch", False, False, marks=pytest.mark.slow),
    ],
)
def test_the_second_phase_holds_the_encoder_still(trained, norm, statistics, affine):
    """In ten steps the frozen values stay bit for bit, despite Adam's momentum, and all others change."""
    changes = {"finetune.freeze_statistics": statistics, "finetune.freeze_affine": affine, "model.norm": norm}
    config = runs.tiny(**{"finetune.steps": 10, "finetune.lr": 1e-3, **changes})
    second = runs.phases(config)[1]
    after, _ = step_on(1, config, [runs.batch(config, k) for k in range(3, 13)], trained, second)
    before, changed = norm_leaves(trained, "enc"), norm_leaves(after, "enc")
    assert {name.split("/")[-1] for name in before} == {"scale", "bias", "mean", "var"}
    for name in before:
        frozen = statistics if name.startswith("batch_stats") else affine
        assert np.array_equal(before[name], changed[name]) == frozen, name
    before, changed = norm_leaves(trained, "dec"), norm_leaves(after, "dec")
    assert len(before) == 4 and not any(np.array_equal(before[name], changed[name]) for name in before)
    for layer in ("enc1", "enc2", "dec2", "dec1"):
        kernels = (x.params[layer]["conv"]["kernel"] for x in (trained, after))
        assert not np.array_equal(*kernels), layer


def test_frozen_statistics_normalise():
    """The frozen encoder uses its running statistics, so features do not depend on other examples."""
    config = runs.tiny(**{"finetune.steps": 1, "optim.lr": 0.0})
    batch = runs.batch(config)
    polluted = {**batch, "image": batch["image"].copy()}
    polluted["image"][1:] = 255 - polluted["image"][1:]
    fresh = runs.initial_state(config)
    moved = [step_on(1, config, [b], fresh, runs.phases(config)[0])[0].batch_stats for b in (batch, polluted)]
    kept = [step_on(1, config, [b], fresh, runs.phases(config)[1])[0].batch_stats for b in (batch, polluted)]
    assert not np.array_equal(*(s["enc2"]["norm"]["batch"]["mean"] for s in moved))
    np.testing.assert_array_equal(*(s["enc2"]["norm"]["batch"]["mean"] for s in kept))
    np.testing.assert_array_equal(kept[0]["enc2"]["norm"]["batch"]["mean"], 0)


@pytest.mark.slow
def test_four_devices_fine_tune_as_one(trained):
    """Frozen statistics need no synchronisation, but those of the decoder do."""
    config = runs.tiny(**{"finetune.steps": 10, "finetune.lr": 1e-3})
    batches, second = [runs.batch(config, k) for k in range(3, 6)], runs.phases(config)[1]
    one, four = (step_on(devices, config, batches, trained, second)[0] for devices in (1, 4))
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 + 1e-3 * np.abs(a).max())
