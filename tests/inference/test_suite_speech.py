"""The suite of speech recognition: what it makes of recordings, how it is judged, and one run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_flagperf.datasets import get
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.worker.ctc import BLANK
from pytest_flagperf.worker.ctc import character_errors
from pytest_flagperf.worker.ctc import word_errors
from suites.inference.ctc_asr import recordings
from suites.training.ctc_asr import features
from suites.training.ctc_asr import prompts
from tests.conftest import SUITES


def scores_of(text: str, symbols=features.SYMBOLS) -> np.ndarray:
    """Scores that a network gives which is sure of every letter: each for two frames, a blank behind it."""
    outputs = [output for letter in text for output in (*[symbols.index(letter)] * 2, BLANK)]
    return np.eye(len(symbols), dtype=np.float32)[outputs]


@pytest.mark.parametrize("text", ["hello", "ee's all", "a"])
def test_repeated_frames_are_one_letter_and_a_blank_between_makes_two(text):
    assert features.decoded(scores_of(text)) == text


def test_frames_without_a_letter_say_nothing():
    silence = np.zeros((20, len(features.SYMBOLS)), np.float32)
    silence[:, BLANK] = 1
    assert features.decoded(silence) == ""


def test_the_letters_of_wav2vec2_are_read_with_its_own_bar_between_words():
    symbols = recordings.LibriSpeech.symbols
    assert len(symbols) == 32
    assert features.decoded(scores_of("IT'S SO", symbols), symbols) == "IT'S SO"


def test_right_answers_have_no_error_and_every_wrong_letter_counts():
    said = ["thank you", "one"]
    assert character_errors(said, said) == (0, 12)
    assert character_errors(said, ["thank yo", "two"]) == (1 + 3, 12)
    assert character_errors(said, ["", ""]) == (12, 12)
    assert word_errors(said, ["thank yo", "one"]) == (1, 3)


def tone(frequency: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * features.RATE)) / features.RATE
    return (10_000 * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def test_a_higher_tone_is_in_a_higher_band_and_loudness_does_not_matter():
    bands = [int(features.log_mel(tone(frequency)).mean(1).argmax()) for frequency in (200, 800, 3000)]
    assert bands == sorted(set(bands))
    quiet, loud = features.log_mel(tone(800) // 4), features.log_mel(tone(800))
    assert quiet.shape == loud.shape == (features.BANDS, 98)
    assert np.abs(quiet.mean(1).argmax() - loud.mean(1).argmax()) == 0
    assert loud.mean() == pytest.approx(0, abs=1e-5)
    assert loud.std() == pytest.approx(1, abs=1e-3)


def test_a_filter_for_every_band_and_none_is_empty():
    assert features.filters().shape == (129, features.BANDS)
    assert (features.filters().sum(0) > 0).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Prepared data: two recordings."""
    waveforms = [tone(500, 0.5), tone(900, 1.0)]
    np.save(tmp_path / "test_waveforms.npy", np.concatenate(waveforms))
    np.save(tmp_path / "test_ends.npy", np.cumsum([len(one) for one in waveforms]))
    (tmp_path / "test_transcripts.txt").write_text("one\ntwo\n")
    return tmp_path


def test_a_recording_is_the_same_in_every_batch_with_silence_behind_it(folder):
    source = recordings.Prompts(folder, frames=120)
    assert source.transcripts == ["one", "two"]
    both, second = source.inputs([0, 1]), source.inputs([1])
    assert both.shape == (2, features.BANDS, 120)
    assert np.array_equal(both[1], second[0])
    assert not both[0, :, 48:].any()
    assert source.scored == [16, 33]


def test_training_hears_every_recording_otherwise_each_time(folder):
    (sound, _), random = prompts.load(folder, "test")[0], np.random.RandomState(1)
    heard = [prompts.augmented(features.log_mel(sound), random) for _ in range(20)]
    lengths = {one.shape[1] for one in heard}
    assert len(lengths) > 1
    assert 48 / 1.2 < min(lengths) <= max(lengths) < 48 * 1.2
    assert all(np.isfinite(one).all() for one in heard)


def test_recordings_of_librispeech_are_decoded_normalized_and_padded(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    chapter = tmp_path / "test-clean" / "1" / "2"
    chapter.mkdir(parents=True)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 HELLO THERE\n1-2-0001 WORLD\n")
    for name, seconds in (("1-2-0000", 0.5), ("1-2-0001", 3.0)):
        time = np.arange(round(seconds * 16000)) / 16000
        soundfile.write(chapter / f"{name}.flac", 0.1 + 0.2 * np.sin(3000 * time), 16000)
    source = recordings.LibriSpeech(tmp_path, 16000)
    assert source.transcripts == ["HELLO THERE", "WORLD"]
    batch = source.inputs([0])
    assert batch.shape == (1, 16000)
    assert batch[0, :8000].mean() == pytest.approx(0, abs=1e-4)
    assert batch[0, :8000].std() == pytest.approx(1, abs=1e-3)
    assert not batch[0, 8000:].any()
    # wav2vec 2.0 gives scores every 20 ms.
    assert source.scored[0] == 24
    with pytest.raises(DatasetError, match="at most 16000 samples"):
        source.inputs([1])


def test_a_folder_without_transcripts_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="unpack the archive again"):
        recordings.LibriSpeech(tmp_path, 16000)


def test_a_recording_without_its_text_is_refused(tmp_path):
    chapter = tmp_path / "test-clean" / "1" / "2"
    chapter.mkdir(parents=True)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 HELLO\n")
    for name in ("1-2-0000", "1-2-0001"):
        (chapter / f"{name}.flac").touch()
    with pytest.raises(DatasetError, match="has 2 recordings, 1 are transcribed"):
        recordings.LibriSpeech(tmp_path, 16000)


def test_synthetic_recordings_are_fresh_each_time():
    config = SimpleNamespace(network="wav2vec2", seconds=0.1, synthetic_samples=3)
    source = recordings.Synthetic(config, seed=1)
    first = source.inputs([0, 2])
    first[:] = 0
    assert source.inputs([0, 2]).shape == (2, 1600)
    assert source.inputs([0, 2]).any()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the Debian packages that the prompts are in."""
    found = tmp_path_factory.mktemp("packages")
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get to fetch the recordings with")
    names = [one.split("_")[0] for one in get("asterisk_prompts").source.files]
    done = subprocess.run(
        ["apt-get", "download", *names], cwd=found, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"apt-get fetches no {' '.join(names)}: {done.stderr[-500:]}")
    return found


@pytest.mark.slow
def test_speech_is_recognised_as_well_by_another_engine_on_weights_that_were_trained_here(tmp_path, packages):
    pytest.importorskip("jiwer")
    pytest.importorskip("transformers")
    command = [sys.executable, "-m", "pytest", str(SUITES / "inference"), "-m", "ctc_asr and lite and throughput"]
    asked = ["--engine=eager,onnxruntime", f"--dataset=asterisk_prompts={packages}"]
    done = subprocess.run(
        [*command, *asked, f"--flagperf-dir={tmp_path / 'results'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(path.read_text()) for path in tmp_path.glob("results/*/*/result.json")]
    assert {one["case"]["engine"] for one in found} == {"eager", "onnxruntime"}
    for one in found:
        assert one["verdict"] == "passed"
        assert one["dataset"]["checksum"]
        assert one["metrics"]["cer"]["value"] == pytest.approx(one["weights"]["quality"]["cer"], abs=0.005)
        assert 0 < one["metrics"]["cer"]["value"] < one["metrics"]["wer"]["value"]
        assert one["metrics"]["output_error"]["value"] < 1e-3
