"""Published scores by hole area. Images, sizes and masks differ, so they never stand in the same table as ours."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Reference:
    """Published scores of one network in one metric.

    Attributes:
      source: publication or repository.
      data: images, their size and kind of holes, as far as the source states them.
      metric: one of `scores.METRICS`.
      values: scores by index into `pipeline.BUCKETS`; only confirmed values are listed.
    """

    source: str
    data: str
    metric: str
    values: dict[int, float]


_PAPER = ("the paper (arXiv 1804.07723, table 1)", "Places2, 512 px, holes off the border")

PUBLISHED = (
    Reference(*_PAPER, "psnr", {1: 28.32, 2: 25.25, 3: 22.89}),
    Reference(*_PAPER, "ssim", {1: 0.870, 2: 0.779, 3: 0.689}),
    Reference(
        "weights of github.com/naoto0804/pytorch-inpainting-with-partial-conv",
        "Places2, size not said",
        "psnr",
        {1: 26.77, 2: 23.25, 3: 21.56},
    ),
    Reference(
        "github.com/xyfJASON/PartialConv-Inpainting-pytorch",
        "CelebA-HQ, 256 px, its 2824 test images",
        "psnr",
        {0: 39.26, 1: 33.00, 2: 29.53, 3: 26.99, 4: 25.04, 5: 21.50},
    ),
)
