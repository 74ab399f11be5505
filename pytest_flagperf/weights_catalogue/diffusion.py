"""Of models that make images."""

from __future__ import annotations

from pytest_flagperf.weights import Recipe
from pytest_flagperf.weights import WeightsSet


SETS: tuple[WeightsSet, ...] = (
    WeightsSet(
        "unet-digits",
        "A small U-Net of the kind that Stable Diffusion has, trained on 4,000 MNIST digits by this plugin's own lite "
        "training",
        "They are made on this machine when they are first needed, which takes half a minute or so.",
        recipe=Recipe("unet"),
    ),
    WeightsSet(
        "unet-sd15",
        "The U-Net of Stable Diffusion 1.5, in the names of diffusers",
        "Give the file diffusion_pytorch_model.safetensors of the model's folder unet with "
        "--weights unet-sd15=/path/to/diffusion_pytorch_model.safetensors. For the speed alone: "
        "--weights unet-sd15=random.",
    ),
)
