"""The suite of the language model: its data and its quality, and whole runs, of a server too."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_flagperf.errors import DatasetError
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data
from suites.inference.llama.text import HeldOut
from tests.conftest import ROOT
from tests.conftest import SUITES


CONFIG = {"vocabulary": 256, "positions": 64, "context": 8, "evaluation_samples": 5}


class Evaluated(HeldOut, InferenceWorkload):
    """The data without a network."""


def held_out(path: Path | None, name: str = "verses", **changes: Any) -> Evaluated:
    data = Data(name, path, synthetic=path is None)
    return Evaluated(Config({**CONFIG, **changes}), data, Weights(), seed=1, batch_size=2, device="cpu")


@pytest.fixture
def verses(tmp_path: Path) -> Path:
    (tmp_path / "test_kjv.txt").write_text("In the beginning God created the heaven and the earth.\n" * 4)
    return tmp_path


def test_windows_are_of_the_held_out_text_and_spread_over_all_of_it(verses):
    found = held_out(verses)
    text = (verses / "test_kjv.txt").read_bytes()
    assert found.samples() == 5
    (windows,) = found.inputs(range(5))
    assert windows.dtype == np.int64
    assert bytes(windows[0].astype(np.uint8)) == text[:8]
    last = (len(text) // 8 - 1) * 8
    assert bytes(windows[-1].astype(np.uint8)) == text[last : last + 8]


def test_a_text_too_short_for_a_window_says_so(verses):
    with pytest.raises(DatasetError, match="dataset verses: its text has 220 tokens, 500 are needed"):
        held_out(verses, context=500)


def test_prompts_are_as_many_as_were_asked_for(verses):
    found = held_out(verses)
    assert found.prompts(16, 6).shape == (6, 16)
    # 220 bytes have four windows of 50.
    assert (found.prompts(50, 6)[4:] == found.prompts(50, 6)[:2]).all()


def test_the_perplexity_is_one_of_what_is_certain_and_grows_with_what_is_not(verses):
    found = held_out(verses)

    def perplexity(likelihood: float) -> float:
        batches = [(np.full((count, 7), math.log(likelihood), np.float32),) for count in (3, 2)]
        return found.quality(batches)["perplexity"]

    assert perplexity(1.0) == pytest.approx(1.0)
    assert perplexity(0.25) == pytest.approx(4.0)
    assert perplexity(0.2) > perplexity(0.25)
    # All tokens of a window are gone over, also the first.
    assert found.unit_count((np.zeros((3, 7)),)) == 24


def test_synthetic_text_is_of_tokens_that_there_are():
    found = held_out(None, vocabulary=11)
    (windows,) = found.inputs(range(5))
    assert windows.shape == (5, 8)
    assert 0 <= windows.min() <= windows.max() < 11
    assert found.prompts(16, 3).shape == (3, 16)


def test_synthetic_text_has_no_prompt_twice():
    # 5 windows of 8 are 40 tokens: less than two prompts of 32.
    found = held_out(None, prompt_lengths=[16, 32], generation_prompts=6)
    for length in (16, 32):
        assert len(np.unique(found.prompts(length, 6), axis=0)) == 6


def test_windows_from_anywhere_are_each_of_another_place_and_the_same_in_every_run(verses):
    found = [bytes(row.astype(np.uint8)) for row in held_out(verses).anywhere(100)]
    text = (verses / "test_kjv.txt").read_bytes()
    assert sorted(found) == sorted(text[place : place + 100] for place in range(len(text) - 99))
    assert found != [text[place : place + 100] for place in range(len(text) - 99)]
    assert found == [bytes(row.astype(np.uint8)) for row in held_out(verses).anywhere(100)]
    assert list(held_out(verses).anywhere(221)) == []


def test_a_text_of_ones_own_is_read_by_the_tokenizer_beside_it(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["in", "the", "beginning", "?"])}
    model = tokenizers.models.WordLevel(words, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "test.txt").write_text("in the beginning the word " * 2)
    found = held_out(tmp_path, "llama-text", context=5, vocabulary=4)
    assert found.inputs([0])[0].tolist() == [[0, 1, 2, 1, 3]]
    with pytest.raises(DatasetError, match="makes token 3; the model has 3"):
        held_out(tmp_path, "llama-text", vocabulary=3)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DatasetError, match="cannot be read as a tokenizer"):
        held_out(tmp_path, "llama-text")


def run(directory: Path, markers: str, *options: str, **environment: str) -> dict[str, Any]:
    """The suite, run; results by role and engine."""
    results = directory / "results"
    chosen = ["-m", f"llama and lite and ({markers})", f"--flagperf-dir={results}", *options]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(SUITES / "inference" / "llama"), *chosen],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(path.read_text()) for path in results.glob("*/*/result.json")]
    assert {one["verdict"] for one in found} == {"passed"}
    return {f"{one['case']['role']} {one['case']['engine']}": one for one in found}


def figure(result: dict[str, Any], name: str) -> float:
    return float(result["metrics"][name]["value"])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Both roles, the forward pass by two engines; the weights are trained if they are not there."""
    directory = tmp_path_factory.mktemp("llama")
    return directory, run(directory, "throughput or generation", "--engine=eager,onnxruntime")


@pytest.mark.slow
def test_text_is_scored_as_well_by_another_engine_and_continued_as_eager_does(ran):
    _, found = ran
    assert set(found) == {"throughput eager", "throughput onnxruntime", "generation eager"}
    for one in found.values():
        assert one["weights"]["quality"]["perplexity"] <= 5.0
        # Of 256 bytes that are all as likely it is 256, of English by the frequencies of its bytes about 20.
        assert 2 < figure(one, "perplexity") <= 5.05
        assert figure(one, "output_error") < 1e-3
    generated = found["generation eager"]
    assert figure(generated, "tpot") > 0
    assert figure(generated, "ttft") > 0
    settings = [note for note in generated["notes"] if "first token after" in note]
    assert len(settings) == 4
    assert any("100.00% are those of eager fp32" in note for note in generated["notes"])


@pytest.fixture
def served(ran: tuple[Path, dict[str, Any]]) -> Iterator[str]:
    """A server on loopback with the very weights that the reference has; gives its URL."""
    directory, _ = ran
    case = json.loads(next(directory.glob("results/*/*/round1/case.json")).read_text())
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.inference.openai_server", case["weights"]["path"]],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate()


@pytest.mark.slow
def test_a_server_that_computes_in_its_own_way_is_measured_as_an_engine(served, tmp_path):
    environment = {"OPENAI_BASE_URL": served, "OPENAI_API_KEY": "a-key-nobody-may-see"}
    one = run(tmp_path, "generation", "--engine=openai", **environment)["generation openai"]
    assert figure(one, "quality_ratio") == pytest.approx(1, abs=1e-3)
    assert figure(one, "output_error") < 1e-3
    assert figure(one, "tokens_per_second_per_device") > 0
    # The model's memory is the server's.
    assert "memory_peak" not in one["metrics"]
    assert one["rounds"][0]["precision"]["server"] == served
    for path in (tmp_path / "results").rglob("*"):
        assert not path.is_file() or b"a-key-nobody-may-see" not in path.read_bytes(), path
