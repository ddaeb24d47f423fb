"""Tests of the Frechet distance by hand, against matrix square roots, and without full rank."""

import types

import numpy as np
import pytest
import scipy.linalg

from pconv_jax.evaluation import frechet, perceptual


def gaussian(seed, count, size, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + shift


def distance(features, others):
    return frechet.distance(frechet.gaussian(features), frechet.gaussian(others))


def by_square_root(a, b):
    """Computes the formula as it is published, with scipy.linalg.sqrtm."""
    first, second = (np.cov(x, rowvar=False) for x in (a, b))
    shift = a.mean(axis=0) - b.mean(axis=0)
    root = scipy.linalg.sqrtm(first @ second)
    return shift @ shift + np.trace(first + second - 2 * root.real)


def test_by_hand():
    """Means (0, 0) and (3, 1) and uncorrelated variances (1, 4) and (9, 4) give 9 + 1 + (1 - 3)^2 + (2 - 2)^2 = 14."""
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)  # variance 1 with n - 1
    assert distance(corners * [1, 2], corners * [3, 2] + [3, 1]) == pytest.approx(14, rel=1e-12)


@pytest.mark.parametrize("counts", [(50, 60), (9, 60), (7, 8)])
def test_against_matrix_square_roots(counts):
    """The distance equals the published formula with more images than features, on both sides or one, and with fewer.

    With fewer images the matrix is singular, and SciPy's square root warns and has fewer digits.
    """
    a, b = gaussian(0, counts[0], 9, shift=0.4), gaussian(1, counts[1], 9, scale=1.5)
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        expected = by_square_root(a, b)
    assert expected > 1
    assert distance(a, b) == pytest.approx(expected, rel=1e-10 if min(counts) > 9 else 1e-4)


def test_of_two_dimensions_in_many():
    """The distance does not depend on rank: rotated features padded with zeros have the same distance."""
    a, b = gaussian(0, 30, 2), gaussian(1, 30, 2, shift=1.0)
    turn = np.linalg.qr(gaussian(2, 40, 40))[0][:2]
    assert distance(a @ turn, b @ turn) == pytest.approx(distance(a, b), rel=1e-12)


@pytest.mark.parametrize("count", [5, 60])
def test_equal_sets_have_no_distance(count):
    """Equal sets have distance zero in any order, never a negative one, for float32 features as of the network."""
    a = gaussian(0, count, 9).astype(np.float32)
    assert 0 <= distance(a, a[::-1]) < 1e-11
    assert distance(a, a + np.float32(1e-3)) == pytest.approx(9e-6, rel=1e-2)


def test_single_images_are_refused():
    with pytest.raises(ValueError, match="1 images have no covariance; needs 2"):
        distance(gaussian(0, 5, 3), gaussian(1, 1, 3))


def test_originals_are_factored_once(tmp_path, monkeypatch):
    """The Gaussian of the originals is computed once per set of members, for any number of methods."""
    (tmp_path / "weights").write_bytes(b"")
    means = types.SimpleNamespace(apply=lambda _, x: x.mean(axis=(1, 2)))  # a network of three features
    monkeypatch.setattr(perceptual.inception, "load", lambda _: (means, {}))
    factored, factor = [], frechet.gaussian
    monkeypatch.setattr(frechet, "gaussian", lambda x: factored.append(x) or factor(x))
    fid, rng = perceptual.Fid(str(tmp_path / "weights")), np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (6, 4, 5, 3), np.uint8) for name in (None, "a", "b")}
    for name, batch in images.items():
        fid.add(name, batch, 6)
    every = np.ones(6, bool)
    result = [fid.distance(name, every) for name in ("a", "b")]
    assert len(factored) == 3
    features = {name: batch.mean(axis=(1, 2)) / 255 for name, batch in images.items()}
    assert result == pytest.approx([by_square_root(features[name], features[None]) for name in ("a", "b")], rel=1e-3)
    monkeypatch.setattr(frechet, "RELIABLE", 3)
    part = fid.distance("a", np.arange(6) < 4)
    assert part == pytest.approx(by_square_root(features["a"][:4], features[None][:4]), rel=1e-3)
    for name, batch in images.items():
        fid.add(name, batch[::-1] // 2, 6)
    assert fid.distance("a", np.ones(12, bool)) != pytest.approx(result[0], rel=1e-3)
