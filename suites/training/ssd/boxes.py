"""Default boxes of a single-shot detector: which of them stand for an object, and what is detected (Liu et al. 2015).

All in NumPy on the host: training and every engine of inference decode in the same way. Boxes are (left, top, right,
bottom) in pixels of the network's image.
"""

from __future__ import annotations

from typing import Any

import numpy as np


# Offsets are in these parts of a default box's size, of its logarithm.
VARIANCE, SIZE_VARIANCE = 0.1, 0.2
# A default box stands for an object that it covers so far, or best of all.
MATCHED = 0.5
# Of detections: the lowest score, how far two of a class may overlap, how many are looked at and how many are left.
SCORE, OVERLAP, CANDIDATES, DETECTIONS = 0.05, 0.5, 400, 200


def default_boxes(config: Any) -> Any:
    """Centers and sizes (x, y, width, height) [boxes, 4] float32, in pixels, in the order of the network's outputs.

    ``config`` has for each feature map its side (``feature_sides``), the distance of its cells (``steps``) and the
    aspect ratios beside 1 (``aspect_ratios``), and the ``sizes``: that of each map, and one more.
    """
    found = []
    for index, (side, step) in enumerate(zip(config.feature_sides, config.steps, strict=True)):
        size, larger = config.sizes[index : index + 2]
        shapes = [(size, size), ((size * larger) ** 0.5,) * 2]
        for ratio in config.aspect_ratios[index]:
            long, short = size * ratio**0.5, size / ratio**0.5
            shapes += [(long, short), (short, long)]
        centers = (np.arange(side) + 0.5) * step
        y, x, shape = np.meshgrid(centers, centers, np.arange(len(shapes)), indexing="ij")
        found.append(np.column_stack([x.ravel(), y.ravel(), np.array(shapes)[shape.ravel()]]))
    return np.concatenate(found).astype(np.float32)


def corners(centered: Any) -> Any:
    """(x, y, width, height) to (left, top, right, bottom), along the last axis."""
    half = centered[..., 2:] / 2
    return np.concatenate([centered[..., :2] - half, centered[..., :2] + half], axis=-1)


def overlaps(ones: Any, others: Any) -> Any:
    """Intersection over union of each of ``ones`` [n, 4] with each of ``others`` [m, 4]: [n, m]."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (ones, others)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def matched(defaults: Any, objects: Any) -> tuple[Any, Any]:
    """What each default box is to say of a scene's ``objects`` [n, 5]: class [boxes] int64, offsets [boxes, 4] float32.

    Class 0 is the background, an object's is one more than its own.
    """
    classes, offsets = np.zeros(len(defaults), np.int64), np.zeros((len(defaults), 4), np.float32)
    if not len(objects):
        return classes, offsets
    covered = overlaps(corners(defaults), objects[:, :4])
    # Whatever its overlap, an object's best box is its own.
    best = covered.argmax(axis=0)
    covered[best, np.arange(len(objects))] = 2
    chosen = covered.argmax(axis=1)
    stands = covered.max(axis=1) >= MATCHED
    classes[stands] = objects[chosen[stands], 4].astype(np.int64) + 1
    theirs, own = objects[chosen[stands], :4], defaults[stands]
    sizes = theirs[:, 2:] - theirs[:, :2]
    offsets[stands, :2] = ((theirs[:, :2] + theirs[:, 2:]) / 2 - own[:, :2]) / own[:, 2:] / VARIANCE
    offsets[stands, 2:] = np.log(sizes / own[:, 2:]) / SIZE_VARIANCE
    return classes, offsets


def detections(scores: Any, offsets: Any, defaults: Any, side: int) -> Any:
    """What a network says of one image: [n, 6] float32, each (left, top, right, bottom, class from 0, score).

    ``scores`` [boxes, classes] are raw, the first class is the background; ``offsets`` are [boxes, 4]. Of each class
    the boxes that overlap a better one are left out (non-maximum suppression).
    """
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = (shifted / shifted.sum(axis=1, keepdims=True))[:, 1:]
    boxes, classes = np.nonzero(shares > SCORE)
    best = np.argsort(-shares[boxes, classes], kind="stable")[:CANDIDATES]
    boxes, classes = boxes[best], classes[best]
    placed = _placed(offsets[boxes], defaults[boxes], side)
    # Boxes of two classes never overlap where each class has a place of its own.
    apart = overlaps(placed + classes[:, None] * (2 * side), placed + classes[:, None] * (2 * side)) > OVERLAP
    kept: list[int] = []
    for one in range(len(boxes)):
        if not apart[one, kept].any():
            kept.append(one)
    kept = kept[:DETECTIONS]
    found = (placed[kept], classes[kept, None], shares[boxes[kept], classes[kept]][:, None])
    return np.concatenate(found, axis=1).astype(np.float32)


def _placed(offsets: Any, defaults: Any, side: int) -> Any:
    centers = defaults[:, :2] + offsets[:, :2] * VARIANCE * defaults[:, 2:]
    # A network that was never trained asks for boxes of any size.
    sizes = defaults[:, 2:] * np.exp(np.minimum(offsets[:, 2:] * SIZE_VARIANCE, 4))
    return np.clip(corners(np.concatenate([centers, sizes], axis=1)), 0, side)
