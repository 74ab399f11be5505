"""Datasets of models that make images."""

from __future__ import annotations

from pytest_flagperf.datasets.folder import Folder
from pytest_flagperf.datasets.model import Dataset


SD15_LATENTS = Dataset(
    name="sd15_latents",
    title="images and their captions, as the U-Net of Stable Diffusion 1.5 sees them",
    kind="user",
    splits={"test": 512},
    licence="that of the images",
    origin="any 512 captioned images, encoded by the model's own autoencoder and text encoder",
    layout=(
        "latents.npy float32 [512, 4, 64, 64]: of images of 512x512, times the autoencoder's scaling factor 0.18215; "
        "text_states.npy float32 [512, 77, 768]: the text encoder's last hidden states"
    ),
    how_to_get=(
        "encode images with the model's folders vae and text_encoder (diffusers: AutoencoderKL, transformers: "
        "CLIPTextModel) and give --dataset sd15_latents=/path/to/folder; for the speed alone: --dataset "
        "sd15_latents=synthetic"
    ),
    surveyor=Folder(rows={"test": ("latents.npy", "text_states.npy")}),
)

CATALOGUE: tuple[Dataset, ...] = (SD15_LATENTS,)
