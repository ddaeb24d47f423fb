"""Peak rates of GPUs, as their makers state them."""

# Dense bfloat16 peak in TFLOP/s, with float32 sums, by a part of the name that the driver reports. The first match
# counts, so a longer name stands before a shorter one that it contains.
BFLOAT16_PEAKS = {
    "B200": 2250.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "GH200": 989.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A40": 150.0,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 6000 Ada": 364.0,
    "RTX A6000": 155.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}


def bfloat16_peak(name: str) -> float | None:
    """Returns the dense bfloat16 peak of a GPU in TFLOP/s, or None if it is unknown.

    Args:
      name: the name that the driver reports, e.g. "NVIDIA H100 80GB HBM3".
    """
    return next((peak for part, peak in BFLOAT16_PEAKS.items() if f"{part} " in f"{name} ".replace("-", " ")), None)
