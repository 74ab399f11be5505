"""ImageNet as the published Vision Transformers see it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..resnet50.images import ImageNet
from ..resnet50.images import decoded


class Squeezed(ImageNet):
    """The whole image at the network's size, whatever its aspect; pixels in -1..1."""

    def __getitem__(self, indices: Any) -> Any:
        pixels = np.stack(list(self.threads.map(self._decoded, (self.files[index][0] for index in indices))))
        return np.ascontiguousarray((pixels / np.float32(127.5) - 1).transpose(0, 3, 1, 2))

    def _decoded(self, path: str) -> Any:
        """One image [side, side, 3] uint8."""
        return np.asarray(decoded(path, "RGB").resize((self.side, self.side), Image.Resampling.BILINEAR))
