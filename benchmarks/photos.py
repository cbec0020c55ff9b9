"""Photos and text: ImageNet networks and an OCR recogniser without fine-tuning.

One row: `python -m benchmarks.photos --only mobilenetv2_100_224 --ratio 0.5`.
"""

from __future__ import annotations

from benchmarks.accuracy import COLUMNS, compressed
from benchmarks.common import Case, Table, run

TABLE = Table(
    "photos",
    "ImageNet networks and OCR, no fine-tuning",
    "250 of the 500 sample photos to calibrate on, the other 250 to measure on (one photo is 0.4 points); "
    "200 and 220 rendered text lines for OCR, where a line counts if it is read exactly. The bar, for the "
    "default recipe: points below the dense model. The photos are probably training images of these "
    "networks: read what is lost, not what is left.",
    COLUMNS,
)

_BARS = {
    ("mobilenetv2_100_224", 0.5): 1.0,
    ("mobilenetv2_100_224", 0.25): None,
    ("efficientnet_lite0_224_bn", 0.5): 1.0,
    ("efficientnet_lite0_224_bn", 0.25): None,
    ("mobilenetv1_025_128", 0.5): None,
    ("mobilenetv1_050_160", 0.5): None,
    ("ch_PP-OCRv4_rec_infer", 0.25): None,
}

_RECIPES = ("default", "magnitude")

CASES = [
    Case(model, ratio, recipe, bar if recipe == "default" else None)
    for (model, ratio), bar in _BARS.items()
    for recipe in _RECIPES
]

if __name__ == "__main__":
    run(TABLE, CASES, compressed, __doc__)
