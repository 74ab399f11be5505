"""The suite of Stable Diffusion's network: what a step of denoising is given, how it is judged, and one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_flagperf.errors import DatasetError
from suites.inference.unet import latents
from suites.inference.unet.test_unet import CASE
from suites.training.unet import noise
from tests.conftest import SUITES


CONFIG = SimpleNamespace(**CASE.config, **CASE.scales["lite"].config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Prepared data: twenty digits of random pixels."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "test_images.npy", random.integers(0, 256, (20, 28, 28), np.uint8))
    np.save(tmp_path / "test_labels.npy", np.arange(20) % 10)
    return tmp_path


def test_early_steps_leave_the_latents_and_the_last_ones_only_noise():
    clean, added = np.ones((3, 1, 2, 2), np.float32), np.full((3, 1, 2, 2), -1, np.float32)
    mixed = noise.mixed(clean, added, np.array([0, 500, noise.STEPS - 1]))[:, 0, 0, 0]
    assert mixed[0] > 0.9
    assert mixed[0] > mixed[1] > mixed[2]
    assert mixed[2] < -0.9


def test_the_evaluation_has_the_same_noise_in_every_run_and_steps_of_the_whole_range():
    (first, steps), (second, again) = noise.evaluation(20, (4, 8, 8)), noise.evaluation(20, (4, 8, 8))
    assert np.array_equal(first, second)
    assert np.array_equal(steps, again)
    assert sorted(steps) == list(range(0, noise.STEPS, noise.STEPS // 20))


def test_a_digit_becomes_as_many_channels_as_stable_diffusion_has_and_no_pixel_is_lost(tmp_path):
    image = np.zeros((1, 28, 28), np.uint8)
    # One bright place of the 16x16 that remain: row 5, column 8.
    image[0, 8:10, 14:16] = 255
    np.save(tmp_path / "test_images.npy", image)
    np.save(tmp_path / "test_labels.npy", np.array([3]))
    found, classes = noise.digits(tmp_path, "test")
    assert found.shape == (1, 4, 8, 8)
    assert classes.tolist() == [3]
    assert np.argwhere(found > 0).tolist() == [[0, 2, 2, 4]]
    assert found.min() == -1
    assert found.max() == 1


def test_steps_are_the_same_in_every_batch(folder):
    steps = latents.of_digits(folder, "test", CONFIG)
    assert len(steps) == 20
    together, alone = steps.inputs(np.arange(10)), steps.inputs(np.array([7]))
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one[7:8], other)
    assert [one.shape[1:] for one in together] == [(4, 8, 8), (), (4, 32)]
    # The same digit has the same text.
    assert np.array_equal(steps.states[3], steps.states[13])
    assert not np.array_equal(steps.states[3], steps.states[4])


def test_predicting_the_noise_is_perfect_and_predicting_nothing_is_one(folder):
    steps = latents.of_digits(folder, "test", CONFIG)
    batches = [slice(0, 15), slice(15, 20)]
    assert steps.error([steps.noise[one] for one in batches]) == 0
    assert steps.error([np.zeros_like(steps.noise[one]) for one in batches]) == pytest.approx(1, abs=0.05)
    # The right noise of other steps is worse than none.
    assert steps.error([steps.noise[::-1][one] for one in batches]) > 1.5


def test_the_latents_of_a_user_are_taken_as_they_are(tmp_path):
    np.save(tmp_path / "latents.npy", np.ones((3, 4, 8, 8), np.float32))
    np.save(tmp_path / "text_states.npy", np.ones((3, 4, 32), np.float16))
    steps = latents.of_user(tmp_path, CONFIG)
    assert len(steps) == 3
    assert [one.dtype for one in steps.inputs(np.array([0, 2]))] == [np.float32, np.int64, np.float32]


def test_latents_of_another_shape_or_number_are_refused(tmp_path):
    np.save(tmp_path / "latents.npy", np.ones((3, 4, 8, 8), np.float32))
    with pytest.raises(DatasetError, match=r"text_states\.npy is no array"):
        latents.of_user(tmp_path, CONFIG)
    np.save(tmp_path / "text_states.npy", np.ones((3, 7, 32), np.float32))
    with pytest.raises(DatasetError, match=r"expected \(N, 4, 32\)"):
        latents.of_user(tmp_path, CONFIG)
    np.save(tmp_path / "text_states.npy", np.ones((2, 4, 32), np.float32))
    with pytest.raises(DatasetError, match="3 latents and 2 texts"):
        latents.of_user(tmp_path, CONFIG)


@pytest.mark.slow
def test_the_full_network_is_that_of_stable_diffusion():
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from suites.training.unet.pytorch import Denoiser

    full = CASE.scales["full"]
    # A model of that size needs no memory there.
    with torch.device("meta"):
        network = Denoiser(SimpleNamespace(**full.config))
    assert sum(one.numel() for one in network.parameters()) == full.parameters


@pytest.mark.slow
def test_noise_is_predicted_as_well_by_another_engine_on_weights_that_were_trained_here(tmp_path):
    pytest.importorskip("diffusers")
    command = [sys.executable, "-m", "pytest", str(SUITES / "inference"), "-m", "unet and lite and throughput"]
    done = subprocess.run(
        [*command, "--engine=eager,onnxruntime", f"--flagperf-dir={tmp_path / 'results'}"],
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
        assert one["metrics"]["noise_mse"]["value"] == pytest.approx(one["weights"]["quality"]["noise_mse"], rel=1e-3)
        assert one["metrics"]["output_error"]["value"] < 1e-3
