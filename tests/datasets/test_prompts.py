"""``asterisk_prompts``: two Debian packages, read without installing them, and what is made of them."""

from __future__ import annotations

import gzip
import io
import tarfile
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pytest_flagperf.datasets import debian
from pytest_flagperf.datasets import get
from pytest_flagperf.datasets import locate
from pytest_flagperf.datasets import prompts
from pytest_flagperf.errors import DatasetError


def deb(files: Mapping[str, bytes]) -> bytes:
    """A Debian package with these files, its control archive of an odd length."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    written = b"!<arch>\n"
    for name, content in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        written += header.encode() + content + b"\n" * (len(content) % 2)
    return written


def wav(seconds: float, rate: int = 8000) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.arange(round(seconds * rate), dtype="<i2").tobytes())
    return content.getvalue()


def packages(recordings: Mapping[str, bytes], document: str) -> dict[str, bytes]:
    return {
        "text.deb": deb({prompts.TRANSCRIPTS: gzip.compress(document.encode())}),
        "sounds.deb": deb({f"{prompts.RECORDINGS}{name}.wav": content for name, content in recordings.items()}),
    }


def test_the_files_of_a_debian_package_are_read_without_unpacking_it():
    assert dict(debian.files(deb({"usr/share/a": b"one", "usr/share/b": b""}))) == {
        "usr/share/a": b"one",
        "usr/share/b": b"",
    }


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"!<arch>\n", deb({})[:-40]])
def test_what_is_no_whole_debian_package_is_refused(content: bytes):
    with pytest.raises(DatasetError, match="download it again"):
        list(debian.files(content))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Press 1, or   'pound' [tone] (softly)!", "press one or 'pound'"),
        ("The  re-entered PIN isn’t right & that's it.", "the re entered pin isn't right and that's it"),
        ("Extension 1234", ""),
        ("...", ""),
    ],
)
def test_a_transcript_becomes_letters_apostrophes_and_single_spaces(text: str, expected: str):
    assert prompts.plain(text) == expected


def test_sounds_that_are_no_speech_are_left_out():
    document = "; a title\n\nbeep: [a tone]\ndigits/1: One\nsilence: (nothing)\n"
    assert prompts.spoken(document) == {"digits/1": "one"}


def test_a_recording_is_kept_once_for_what_is_said_and_only_between_the_bounds_of_length():
    recordings = {"a": wav(1), "b": wav(2), "c": wav(0.2), "d": wav(5), "e": wav(1)}
    document = "a: Hello\nb: hello!\nc: short\nd: long\ne: World\nf: never recorded\n"
    found = prompts.prompts(packages(recordings, document))
    assert [(text, len(waveform)) for text, waveform in found] == [("hello", 8000), ("world", 8000)]


def test_a_recording_of_another_rate_is_refused():
    with pytest.raises(DatasetError, match="16000"):
        prompts.prompts(packages({"a": wav(1, 16000)}, "a: hello\n"))


def test_packages_without_the_transcripts_are_refused():
    with pytest.raises(DatasetError, match=r"core-sounds-en\.txt\.gz"):
        prompts.prompts({"sounds.deb": deb({f"{prompts.RECORDINGS}a.wav": wav(1)})})


def test_both_splits_hold_what_is_said_beside_what_was_recorded(tmp_path: Path):
    names = [f"{first}{second}" for first in "abcdefghij" for second in "abcdefghij"]
    lengths = {name: 0.5 + index / 100 for index, name in enumerate(names)}
    document = "".join(f"{name}: word {name}\n" for name in names)
    prompts.prepare(packages({name: wav(seconds) for name, seconds in lengths.items()}, document), tmp_path)
    said = []
    for split, count in (("test", prompts.TEST), ("train", len(names) - prompts.TEST)):
        transcripts = (tmp_path / f"{split}_transcripts.txt").read_text().splitlines()
        ends = np.load(tmp_path / f"{split}_ends.npy")
        waveforms = np.split(np.load(tmp_path / f"{split}_waveforms.npy"), ends[:-1])
        assert len(transcripts) == len(waveforms) == count
        for text, waveform in zip(transcripts, waveforms, strict=True):
            assert len(waveform) == round(lengths[text.removeprefix("word ")] * prompts.RATE)
        said += transcripts
    assert sorted(said) == sorted(f"word {name}" for name in names)


def test_a_missing_dataset_says_what_to_fetch(tmp_path: Path):
    with pytest.raises(DatasetError, match="apt-get download asterisk-core-sounds-en=1"):
        locate("asterisk_prompts", overrides={}, data_root=tmp_path)


def test_a_folder_without_the_packages_says_which_it_lacks(tmp_path: Path):
    given = tmp_path / "given"
    given.mkdir()
    with pytest.raises(DatasetError, match=r"asterisk-core-sounds-en_1\.6\.1-1_all\.deb.*apt-get download"):
        locate("asterisk_prompts", overrides={"asterisk_prompts": str(given)}, data_root=tmp_path)


def test_the_splits_of_the_registry_are_those_of_the_preparation():
    assert get("asterisk_prompts").splits["test"] == prompts.TEST
