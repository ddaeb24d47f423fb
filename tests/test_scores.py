"""Tests of scores: every image counts once, and records describe what they measure."""

import json

import numpy as np
import pytest
import skimage.metrics

import pictures
import scoring
from pconv_jax.evaluation import scores


def network_records(batches, batch_size, **fake):
    predict, _ = scoring.fake_network(batch_size, **fake)
    return scores.score({scores.NETWORK: scores.network(predict, None, batch_size)}, batches)


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_every_image_is_counted_once(count):
    """With N = batch + 1, each image has one record in order, equal to the image scored alone, so no padding counts."""
    predict, calls = scoring.fake_network(4, 0.1)
    method = {"a": scores.network(predict, "variables", 4)}
    records = scores.score(method, scoring.batches(count, 4))
    assert calls == ["variables"] * -(-count // 4)
    assert [record["name"] for record in records] == [scoring.example(i).name for i in range(count)]
    alone = [network_records([[scoring.example(i)]], 1, offset=0.1)[0] for i in range(count)]
    for record, single in zip(records, alone, strict=True):
        for name in scores.METRICS:
            assert record[name] == pytest.approx(single[name], rel=1e-5)
    assert len({record["psnr"] for record in records}) == count


def test_records_say_what_was_scored():
    """Records have the name, photograph, mask, bucket, hole area and border of each example beside its scores."""
    for index, record in enumerate(network_records(scoring.batches(5, 4), 4)):
        about = scoring.example(index).about
        assert list(record) == ["method", *scores.ABOUT, *scores.METRICS] and record["method"] == scores.NETWORK
        assert {key: record[key] for key in scores.ABOUT} == {key: about[key] for key in scores.ABOUT}
        assert (record["image"], record["mask"]) == (f"photo{index % 3}.png", f"0:{index}")
        assert (record["bucket"], record["hole_area"], record["touches_border"]) == (1, 54 / 480, True)
        json.dumps(record)


def test_scores_equal_scikit_image():
    """Scores are of the composite, its hole and the raw output, each rounded to uint8."""
    record = network_records([[scoring.example(0)]], 1, offset=0.11, everywhere=True)[0]
    example = scoring.example(0)
    raw = np.round(np.clip(example.image / 255 + np.float32(0.11), 0, 1) * 255).astype(np.uint8)
    composite = np.where(example.mask, example.image, raw)
    hole = example.mask[..., 0] == 0
    psnr = skimage.metrics.peak_signal_noise_ratio
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    expected = {
        "l1_percent": np.abs(composite.astype(float) - example.image).mean() / 2.55,
        "psnr": psnr(example.image, composite),
        "ssim": skimage.metrics.structural_similarity(example.image, composite, **options),
        "hole_psnr": psnr(example.image[hole], composite[hole]),
        "raw_psnr": psnr(example.image, raw),
    }
    assert {name: record[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert set(expected) == set(scores.METRICS) and len({round(value, 3) for value in expected.values()}) == 5


def test_perfect_and_known_errors():
    """A perfect filling has L1 0, the largest PSNR and SSIM 1; an error of 51 in 54 of 480 pixels is as by hand."""
    for record in network_records(scoring.batches(4, 4), 4):
        assert (record["l1_percent"], record["psnr"], record["hole_psnr"], record["raw_psnr"]) == (0, 100, 100, 100)
        assert record["ssim"] == pytest.approx(1, abs=1e-5)
    grey = scoring.example(0, image=np.full((20, 24, 3), 100, np.uint8))
    (record,) = network_records([[grey]], 1, offset=51 / 255)
    assert record["l1_percent"] == pytest.approx(100 * 54 / 480 * 51 / 255, rel=1e-4)
    assert record["psnr"] == pytest.approx(10 * np.log10(255**2 / (51**2 * 54 / 480)), rel=1e-4)
    assert record["hole_psnr"] == pytest.approx(10 * np.log10(255**2 / 51**2), rel=1e-4)
    assert 0 < record["ssim"] < 0.99


def test_composites_are_rounded_not_truncated():
    """An error below half a grey level counts as none, since scores are of the uint8 image that is saved."""
    for record in network_records(scoring.batches(4, 4), 4, offset=-0.4 / 255):
        assert record["l1_percent"] == 0


def test_errors_outside_the_hole_count_for_the_raw_output_alone():
    """Errors at valid pixels change the raw score alone, since the composite takes these pixels from the image."""
    inside, everywhere = (
        network_records([[scoring.example(0)]], 1, offset=0.1, everywhere=e)[0] for e in (False, True)
    )
    same = {name for name in scores.METRICS if inside[name] == everywhere[name]}
    assert same == set(scores.METRICS) - {"raw_psnr"} and everywhere["raw_psnr"] < inside["raw_psnr"] == inside["psnr"]


@pytest.mark.parametrize("channels", [1, 3])
def test_methods_are_scored_on_the_same_examples(channels):
    """A baseline's records follow the network's and differ from them in method and scores alone."""
    predict, _ = scoring.fake_network(4)
    methods = {"network": scores.network(predict, None, 4), "mean fill": scores.baseline("mean fill")}
    records = scores.score(methods, scoring.batches(5, 4, channels))
    assert [record["method"] for record in records] == ["network"] * 5 + ["mean fill"] * 5
    for one, other in zip(records[:5], records[5:], strict=True):
        assert {name for name in one if one[name] != other[name]} == {"method", *scores.METRICS}
        assert other["psnr"] < one["psnr"] and other["raw_psnr"] == other["psnr"]


def test_psnr_of_a_checkpoint_is_the_mean_of_the_records():
    """The mean PSNR for checkpoints equals that of the records; padding of the last batch does not count."""
    batches = list(scoring.batches(5, 4))
    predict, _ = scoring.fake_network(4, 0.1)
    arrays = [dict(zip(("image", "mask"), scores.stack(batch), strict=True)) for batch in batches]
    result = scores.psnr(predict, None, arrays, 4)
    assert result == pytest.approx(np.mean([r["psnr"] for r in network_records(batches, 4, offset=0.1)]), rel=1e-6)


def test_to_uint8():
    """Values are clamped, then rounded."""
    assert scores.to_uint8(np.array([-0.5, 0, 0.4999 / 255, 0.501 / 255, 1, 1.7])).tolist() == [0, 0, 0, 1, 255, 255]
    image = pictures.noise(0)
    np.testing.assert_array_equal(scores.to_uint8(image / np.float32(255)), image)


class Brightness:
    """A stand-in for LPIPS (difference of means) and for FID (counts its images)."""

    def __init__(self):
        self.added = []

    def features(self, images):
        return images.mean(axis=(1, 2, 3))

    def distance(self, features, others):
        return np.abs(features - others)

    def add(self, method, images, count):
        self.added += [(method, image.mean()) for image in images[:count]]


def test_lpips_and_fid_are_of_composites():
    """The measures see each uint8 composite and original once, and no padding of a short batch."""
    measure = Brightness()
    predict, _ = scoring.fake_network(4, 0.1, everywhere=True)
    methods = {"a": scores.network(predict, None, 4), "b": scores.baseline("mean fill")}
    records = scores.score(methods, scoring.batches(5, 4), lpips=measure, fid=measure)
    examples = [scoring.example(i) for i in range(5)]
    originals = [example.image.mean() for example in examples]
    raw = [scores.to_uint8(e.image / np.float32(255) + np.float32(0.1)) for e in examples]
    composites = [np.where(e.mask, e.image, r).mean() for e, r in zip(examples, raw, strict=True)]
    assert [value for method, value in measure.added if method is None] == originals
    assert [value for method, value in measure.added if method == "a"] == pytest.approx(composites)
    assert len(measure.added) == 15
    result = [record["lpips"] for record in records if record["method"] == "a"]
    assert result == pytest.approx(np.subtract(composites, originals), abs=1e-5) and min(result) > 0
    assert list(records[0]) == ["method", *scores.ABOUT, *scores.METRICS, "lpips"]
