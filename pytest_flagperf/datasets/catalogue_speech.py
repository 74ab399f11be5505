"""Datasets of recordings."""

from __future__ import annotations

from pytest_flagperf.datasets.folder import Folder
from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import Source


ASTERISK_PROMPTS = Dataset(
    name="asterisk_prompts",
    title="439 spoken prompts of a telephone exchange with what is said, one voice, 8 kHz, 11 minutes",
    kind="package",
    splits={"train": 359, "test": 80},
    licence="CC BY-SA 3.0",
    origin=(
        "Asterisk's core sounds in English, recorded by Allison Smith, as the Debian packages "
        "asterisk-core-sounds-en-wav and asterisk-core-sounds-en ship them"
    ),
    layout=(
        "{train,test}_waveforms.npy int16, all recordings one after the other, {train,test}_ends.npy int64 [N], where "
        "each ends, {train,test}_transcripts.txt, a line of letters, apostrophes and spaces each; test: 80 drawn with "
        "seed 0"
    ),
    how_to_get=(
        "Fetch two Debian packages into a folder (cd DIR && apt-get download asterisk-core-sounds-en=1.6.1-1 "
        "asterisk-core-sounds-en-wav=1.6.1-1; neither has to be installed) and give --dataset asterisk_prompts=DIR; it "
        "is prepared from them once"
    ),
    source=Source(
        package="asterisk-core-sounds-en-wav",
        version="1.6.1-1",
        files={
            "asterisk-core-sounds-en_1.6.1-1_all.deb": (
                "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50"
            ),
            "asterisk-core-sounds-en-wav_1.6.1-1_all.deb": (
                "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d"
            ),
        },
    ),
    prepare="pytest_flagperf.datasets.prompts:prepare",
    payload={
        "test_ends.npy": "34be656b8a22884d8b1ba9aceb83a1550ae5471ed038da97482f655f20945045",
        "test_transcripts.txt": "8923619383c379288bf42051d075a18bb94f4d8d6e4d4051f7a78bd126952b28",
        "test_waveforms.npy": "b3b6505b22e5de67f3f156f19136f9ef62f2ac8d7da2979e0d8f68b503079a51",
        "train_ends.npy": "2b8014eade014b5494c3a79c013b7b9c03cbbd124131f23c69803af782dacbed",
        "train_transcripts.txt": "e14770e15e2a8a2a327dd0abaff65fd9a278e76794e421a0695afcfaad4d7804",
        "train_waveforms.npy": "b0f6298575f6885c16be9cc7f72dd1367a35d6fa32c7356e15eeb1ca9f36ea38",
    },
)

LIBRISPEECH = Dataset(
    name="librispeech",
    title="LibriSpeech test-clean: 5.4 hours of read English, 16 kHz",
    kind="user",
    splits={"test": 2620},
    licence="CC BY 4.0",
    origin="Panayotov et al. 2015, LibriSpeech: an ASR corpus based on public domain audio books; openslr.org/12",
    layout="test-clean/SPEAKER/CHAPTER/*.flac and SPEAKER-CHAPTER.trans.txt beside them, as the archive unpacks",
    how_to_get=(
        "download test-clean.tar.gz (md5 32fa31d27d2e1cad72775fee3f4849a9) from https://www.openslr.org/12, unpack it "
        "and give --dataset librispeech=/path/to/LibriSpeech; for the speed alone: --dataset librispeech=synthetic"
    ),
    surveyor=Folder(samples={"test": "test-clean/*/*/*.flac"}),
)

CATALOGUE: tuple[Dataset, ...] = (ASTERISK_PROMPTS, LIBRISPEECH)
