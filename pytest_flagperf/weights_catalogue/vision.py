"""Of models that look at images."""

from __future__ import annotations

from pytest_flagperf.weights import Recipe
from pytest_flagperf.weights import WeightsSet


SETS = (
    WeightsSet(
        "resnet50-digits",
        "ResNet-50 of a quarter of its width, trained on 4,000 MNIST digits by this plugin's own lite training",
        "They are made on this machine when they are first needed, which takes half a minute or so.",
        recipe=Recipe("resnet50"),
    ),
    WeightsSet(
        "resnet50-imagenet",
        "ResNet-50 v1.5 trained on ImageNet-1k, in torchvision's names",
        "Give a state dict with --weights resnet50-imagenet=/path/to/resnet50.pth: torchvision's "
        "ResNet50_Weights.IMAGENET1K_V1 saved with torch.save(model.state_dict(), path), or as .safetensors. For the "
        "speed alone: --weights resnet50-imagenet=random.",
    ),
    WeightsSet(
        "vit-digits",
        "A Vision Transformer of 4 layers, trained on 4,000 MNIST digits by this plugin's own lite training",
        "They are made on this machine when they are first needed, which takes half a minute or so.",
        recipe=Recipe("vit"),
    ),
    WeightsSet(
        "vit-large-imagenet",
        "ViT-L/16 at 224x224, fine-tuned on ImageNet-1k, in transformers' names",
        "Give a state dict with --weights vit-large-imagenet=/path/to/model.safetensors: that of "
        "google/vit-large-patch16-224. For the speed alone: --weights vit-large-imagenet=random.",
    ),
    WeightsSet(
        "ssd-digits",
        "A small single-shot detector, trained on scenes of MNIST digits by this plugin's own lite training",
        "They are made on this machine when they are first needed, which takes half a minute or so.",
        recipe=Recipe("ssd"),
    ),
    WeightsSet(
        "ssd-coco",
        "SSD-ResNet-34 at 300x300 with 91 classes trained on COCO, in this plugin's names",
        "Nobody publishes them: give a state dict of suites/training/ssd/pytorch.py's SSD, trained by you, with "
        "--weights ssd-coco=/path/to/ssd.pth, or .safetensors. For the speed alone: --weights ssd-coco=random.",
    ),
    WeightsSet(
        "crnn-digits",
        "A CRNN of a fifth of its width, trained on lines of MNIST digits by this plugin's own lite training",
        "They are made on this machine when they are first needed, which takes half a minute or so.",
        recipe=Recipe("crnn"),
    ),
    WeightsSet(
        "crnn-words",
        "CRNN with 36 letters and digits, trained on images of words, in this plugin's names",
        "Give a state dict of suites/training/crnn/pytorch.py's CRNN, trained by you, with --weights "
        "crnn-words=/path/to/crnn.pth, or .safetensors. For the speed alone: --weights crnn-words=random.",
    ),
)
