"""Datasets of images, of the full scales."""

from __future__ import annotations

from pytest_flagperf.datasets.folder import Folder
from pytest_flagperf.datasets.model import Dataset


COCO2017 = Dataset(
    name="coco2017",
    title="COCO 2017, boxes of 80 categories",
    kind="user",
    splits={"val": 5000},
    licence="annotations CC BY 4.0; images under the terms of Flickr's users",
    origin="Common Objects in Context (https://cocodataset.org)",
    layout="val2017/*.jpg, annotations/instances_val2017.json; for int8 train2017/*.jpg too, or some of them",
    how_to_get=(
        "download val2017.zip and annotations_trainval2017.zip from https://cocodataset.org and unpack both into one "
        "folder"
    ),
    surveyor=Folder(files=("annotations/instances_val2017.json",), samples={"val": "val2017/*.jpg"}),
)

IIIT5K = Dataset(
    name="iiit5k",
    title="IIIT 5K-Word, images of single words",
    kind="user",
    splits={"train": 2000, "test": 3000},
    licence="that of the Centre for Visual Information Technology, IIIT Hyderabad; read it where you download it",
    origin="IIIT Hyderabad (https://cvit.iiit.ac.in), Mishra et al. 2012",
    layout=(
        "train/*.png, test/*.png, and train.tsv, test.tsv: on each line the path of an image below the folder, a TAB, "
        "and its word"
    ),
    how_to_get=(
        "download IIIT5K-Word_V3.0.tar.gz from https://cvit.iiit.ac.in and unpack it; write the two lists from "
        "ImgName and GroundTruth of traindata.mat and testdata.mat"
    ),
    surveyor=Folder(
        samples={"train": "train/*.png", "test": "test/*.png"}, lines={"train": "train.tsv", "test": "test.tsv"}
    ),
)

CATALOGUE: tuple[Dataset, ...] = (COCO2017, IIIT5K)
