"""Of models that look at images."""

from __future__ import annotations

from pytest_flagperf.weights import Recipe
from pytest_flagperf.weights import WeightsSet


SETS = (
    WeightsSet(
        "resnet50-digits",
        "ResNet-50 of a quarter of its width, trained on 5,000 MNIST digits by this plugin's own lite training",
        "They are made on this machine when they are first needed, which takes a minute or two.",
        recipe=Recipe("resnet50"),
    ),
    WeightsSet(
        "resnet50-imagenet",
        "ResNet-50 v1.5 trained on ImageNet-1k, in torchvision's names",
        "Give a state dict with --weights resnet50-imagenet=/path/to/resnet50.pth: torchvision's "
        "ResNet50_Weights.IMAGENET1K_V1 saved with torch.save(model.state_dict(), path), or as .safetensors. For the "
        "speed alone: --weights resnet50-imagenet=random.",
    ),
)
