"""The suites of inference that ship, run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import SUITES


@pytest.mark.slow
def test_resnet50_answers_as_right_by_every_engine_on_weights_that_were_trained_here(tmp_path):
    # Those of other frameworks, and the compilers that take a minute, are in test_engines_runs.py.
    command = [sys.executable, "-m", "pytest", str(SUITES / "inference"), "-m", "resnet50 and lite and throughput"]
    asked = ["--framework=pytorch", "--engine=eager,inductor,onnxruntime"]
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
    assert {one["case"]["engine"] for one in found} == {"eager", "inductor", "onnxruntime"}
    for one in found:
        assert one["verdict"] == "passed"
        assert one["weights"]["quality"]["top1"] >= 0.96
        assert one["metrics"]["top1"]["value"] >= 0.95
        assert one["metrics"]["output_error"]["value"] < 1e-3
    # What was compiled is not kept.
    assert not list(tmp_path.glob("results/*/*/round1/*/engine"))
