"""COCO's average precision of boxes, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError


def truth(boxes: Sequence[Any], side: int, classes: int) -> dict[str, Any]:
    """Objects of images, [n, 5] each, in the form of COCO's annotations; images and classes are numbered from 0."""
    annotations = []
    for image, objects in enumerate(boxes):
        for left, top, right, bottom, label in objects.tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    return {
        "info": {},
        "images": [{"id": image, "width": side, "height": side} for image in range(len(boxes))],
        "categories": [{"id": label, "name": str(label)} for label in range(classes)],
        "annotations": annotations,
    }


def listed(image: int, found: Any) -> Any:
    """Detections of an image [n, 6] as COCO lists them [n, 7]: image, left, top, width, height, score, category."""
    numbers = np.full((len(found), 1), image, np.float32)
    sizes = found[:, 2:4] - found[:, :2]
    return np.concatenate([numbers, found[:, :2], sizes, found[:, 5:], found[:, 4:5]], axis=1)


def average_precision(annotations: dict[str, Any], detected: Any) -> float:
    """AP at overlaps of 0.50 to 0.95, all sizes, at most 100 detections an image: what COCO ranks detectors by.

    ``annotations`` are in COCO's form, see :func:`truth`, ``detected`` is [n, 7], see :func:`listed`.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ConfigurationError(
            "average precision is pycocotools', not installed here: pip install 'pytest-flagperf[vision]'"
        ) from error
    if not len(detected):
        return 0.0
    # It tells how far it is on the standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = annotations
        expected.createIndex()
        found = COCOeval(expected, expected.loadRes(np.asarray(detected, np.float64)), "bbox")
        found.evaluate()
        found.accumulate()
        found.summarize()
    # Without any object there is nothing to be right about: -1.
    return max(0.0, float(found.stats[0]))
