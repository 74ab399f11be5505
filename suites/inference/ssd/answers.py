"""What a detector's outputs say of whole images, as COCO lists it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...training.ssd.boxes import detections
from ...training.ssd.precision import listed


def detected(outputs: tuple[Any, ...], images: Sequence[dict[str, Any]], defaults: Any, config: Any) -> Any:
    """Every detection [n, 7], from the scores and offsets of a batch of ``images``.

    Boxes are in the pixels of the image as it is on disk. ``first_category`` of ``config`` is the category that class 0
    stands for: COCO counts from 1.
    """
    found = [np.zeros((0, 7), np.float32)]
    for image, scores, offsets in zip(images, *outputs, strict=True):
        one = detections(scores, offsets, defaults, config.image_size)
        one[:, :4] *= np.tile([image["width"], image["height"]], 2) / np.float32(config.image_size)
        one[:, 4] += config.first_category
        found.append(listed(image["id"], one))
    return np.concatenate(found)
