"""A single-shot detector in PyTorch answers: the network that the training suite trains."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from ...training.ssd.boxes import default_boxes
from ...training.ssd.precision import average_precision
from ...training.ssd.precision import truth
from ...training.ssd.pytorch import SSD
from ...training.ssd.scenes import CLASSES
from ...training.ssd.scenes import SIDE
from ...training.ssd.scenes import scenes
from .answers import detected
from .images import Coco
from .images import Synthetic
from .images import training_photos


class Detector(PyTorchInferenceWorkload):
    """Images [N, C, side, side] float32 to raw scores [N, boxes, classes] and offsets [N, boxes, 4] of default boxes.

    The engine executes the network. Which boxes these are and which of them are left (non-maximum suppression) is found
    on the host, the same way for every engine, and is none of what is timed.
    """

    input_names = ("images",)
    output_names = ("scores", "offsets")

    def setup(self) -> None:
        self.defaults = default_boxes(self.config)
        if self.data.synthetic:
            self.images: Any = Synthetic(self.config, self.seed)
        elif self.data.name == "digits":
            self.images, objects = scenes(self.data.path, "test", self.config.test_scenes, 0)
            self.annotations = truth(objects, SIDE, CLASSES)
        else:
            self.images = Coco(self.data.path, self.config)
            self.annotations = self.images.annotations

    def network(self) -> nn.Module:
        return SSD(self.config)

    def samples(self) -> int:
        return len(self.images)

    def inputs(self, indices: Sequence[int]) -> tuple[Any]:
        return (self.images[np.asarray(indices)],)

    def calibration(self, count: int) -> Iterator[tuple[Any]]:
        if self.data.synthetic:
            images: Any = Synthetic(self.config, self.seed + 1)
        elif self.data.name == "digits":
            images, _ = scenes(self.data.path, "train", count, self.seed)
        else:
            images = training_photos(self.data.path, self.config)
        return self.drawn(images, count)

    def judged(self, outputs: tuple[Any, ...], indices: Sequence[int]) -> tuple[Any, ...]:
        """The detections in a batch [n, 7], as COCO lists them: the outputs have 3.3 MB an image."""
        if self.data.synthetic or self.weights.random:
            return ()
        images = [self.annotations["images"][index] for index in indices]
        return (detected(outputs, images, self.defaults, self.config),)

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        return {"box_ap": average_precision(self.annotations, np.concatenate([found for (found,) in outputs]))}
