"""The PaddlePaddle adapter and its suites, each in an interpreter of its own: pytest never imports a framework."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


pytestmark = [
    pytest.mark.paddle,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("paddle") is None, reason="paddle is not installed"),
]

ROOT = Path(__file__).parents[2]

# What every script starts with; it prints one JSON value, on rank 0.
PRELUDE = f"""
import json, os, sys, types
from pathlib import Path
import numpy as np
import paddle
from pytest_flagperf import errors
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.worker import main as worker
from pytest_flagperf.worker.paddle import Backend

SUITES = Path({str(ROOT)!r}) / "suites" / "training"
RANK, WORLD_SIZE = int(os.environ.get("PADDLE_TRAINER_ID", 0)), int(os.environ.get("PADDLE_TRAINERS_NUM", 1))
CONTEXT = RankContext(Path("case.json"), Path("."), RANK, RANK, WORLD_SIZE)
RESNET = dict(width=4, channels=1, classes=10, image_size=32, batch_size=4, epochs=2, optimizer="sgd",
    learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=1e-4, label_smoothing=0.1, warmup_epochs=1)
WIDE_DEEP = dict(embedding_size=4, hidden_sizes=[8], global_batch_size=32, epochs=8, learning_rate=0.01)


def a_case(model, config, path=None, precision="fp32", name="own", **other):
    workload = {{"resnet50": "paddle:ResNet50", "wide_deep": "paddle:WideDeep"}}[model]
    return dict(role="convergence", framework="paddle", model=model, vendor="cpu", seed=1, precision=precision,
        config=config, targets=[], device={{"device": "cpu", "backend": "gloo"}}, directory=str(SUITES / model),
        workload=workload, dataset=dict(name=name, path=path, synthetic=path is None)) | other


def a_workload(case, backend=None):
    backend = backend or Backend(CONTEXT, case)
    events = types.SimpleNamespace(last_written=float("inf"))
    workload = worker.build_workload(backend, case, events)
    workload.total_steps = 100
    return backend, workload


def answer(value):
    if RANK == 0:
        Path("answer.json").write_text(json.dumps(value))
"""

# Tabular data a network can learn, made of a few rows so that a test takes seconds.
TABULAR = """
random = np.random.RandomState(0)
ids, dense = random.randint(0, 5, (1333, 3)), random.standard_normal((1333, 2)).astype(np.float32)
labels = ((ids[:, 0] - 2) + dense[:, 0] > 0).astype(np.float32)
if RANK == 0:
    for split, rows in (("train", slice(0, 1024)), ("test", slice(1024, None))):
        for part, values in (("categorical", ids), ("dense", dense), ("labels", labels)):
            np.save(f"{split}_{part}.npy", values[rows])
    np.save("vocabulary_sizes.npy", np.array([5, 5, 5]))
"""


def run(script: str, directory: Path, ranks: int = 1) -> Any:
    """What the script answers. With several ranks Paddle's launcher starts it."""
    (directory / "script.py").write_text(PRELUDE + script, encoding="utf-8")
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", "logs"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    done = subprocess.run(
        [*command, "script.py"],
        cwd=directory,
        env={**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((directory / "answer.json").read_text(encoding="utf-8"))


def test_resnet50_is_that_of_paddle_vision_and_lite_is_a_narrow_one(tmp_path: Path) -> None:
    answer = run(
        """
found = {}
for scale, config in (("full", dict(width=64, channels=3, classes=1000)), ("lite", dict(width=16))):
    backend, workload = a_workload(a_case("resnet50", {**RESNET, **config}))
    backend.prepare(workload)
    found[scale] = backend.parameters()
    if scale == "full":
        standard = paddle.vision.models.resnet50().state_dict()
        ours = backend._model.state_dict()
        found["same"] = {name: v.shape for name, v in standard.items()} == {name: v.shape for name, v in ours.items()}
answer(found)
""",
        tmp_path,
    )
    assert answer == {"full": 25_557_032, "lite": 1_484_538, "same": True}


def test_only_what_is_in_force_is_called_so(tmp_path: Path) -> None:
    """On a CPU Paddle's autocast warns and computes in fp32; the adapter refuses, with Paddle's words."""
    answer = run(
        """
said = {}
for precision in ("tf32", "amp", "bf16", "fp16", "int8"):
    try:
        Backend(CONTEXT, a_case("resnet50", RESNET, precision=precision))
    except errors.PrecisionUnavailable as error:
        said[precision] = str(error)
try:
    Backend(CONTEXT, a_case("resnet50", RESNET, device={"device": "no_such_device"}))
except errors.DeviceUnavailable as error:
    said["device"] = str(error)
for precision in ("fp32", "fp64"):
    backend, workload = a_workload(a_case("resnet50", RESNET, precision=precision))
    backend.prepare(workload)
    backend.train_step([backend.to_device(next(iter(workload.batches("train"))))])
    said[precision] = [backend.precision(), len(backend.losses()), backend.core_time > 0]
answer(said)
""",
        tmp_path,
    )
    assert "a CPU has none" in answer["tf32"]
    assert "int8" in answer["int8"]
    assert "no_such_device:0" in answer["device"]
    for precision in ("amp", "bf16", "fp16"):
        assert "computes in float32: amp_guard can only be enabled on" in answer[precision]
    for precision, dtype in (("fp32", "float32"), ("fp64", "float64")):
        state = {"asked": precision, "parameters": dtype, "autocast": None, "loss_scaling": False, "device_name": "cpu"}
        assert answer[precision] == [state, 1, True]


def test_wide_deep_learns_and_its_auc_is_that_of_the_whole_evaluation_split(tmp_path: Path) -> None:
    answer = run(
        TABULAR
        + """
target = dict(metric="auc", bound=0.95, direction="at least")
Path("case.json").write_text(json.dumps(a_case("wide_deep", WIDE_DEEP, path=".", targets=[target])))
worker.main(CONTEXT)
from pytest_flagperf import perflog
answer({event.name: event.value for event in perflog.read_events(Path("rank0.events.jsonl"))})
""",
        tmp_path,
    )
    assert answer["FINISHED"]["converged"] is True
    assert answer["FINISHED"]["final_auc"] == answer["EVALUATE"]["auc"] >= 0.95
    assert answer["TRAIN_END"]["num_trained_samples"] == answer["TRAIN_END"]["global_steps"] * 32


def test_two_ranks_end_as_one_whatever_the_accumulation(tmp_path: Path) -> None:
    """Two ranks, one reduction for two micro-batches, every evaluation sample once, statistics averaged."""
    script = (
        TABULAR
        + """
accumulation = 2 if WORLD_SIZE > 1 else 1
case = a_case("wide_deep", {**WIDE_DEEP, "gradient_accumulation_steps": accumulation}, path=".")
backend = Backend(CONTEXT, case)
backend.sum([0.0])  # the data is on disk
_, workload = a_workload(case, backend)
backend.prepare(workload)
batches = [backend.to_device(batch) for batch in workload.batches("train")]
for start in range(0, len(batches), accumulation):
    backend.train_step(batches[start : start + accumulation])
seen = backend.gather(np.concatenate([dense for _, dense, _ in workload.batches("test")]))
found = {
    "digests": backend.digests(),
    "sum": backend.sum([1.0, backend.rank]),
    "each_once": sorted(seen[:, 0].tolist()) == sorted(dense[1024:, 0].tolist()),
    "weights": backend._model.deep[0].weight.flatten().tolist(),
    "auc": backend.evaluate(workload)["auc"],
}
# The running statistics of a rank depend on what it has seen, until an evaluation.
normalized = types.SimpleNamespace(
    model=lambda: paddle.nn.Sequential(paddle.nn.BatchNorm1D(1)),
    optimizer=lambda model: (paddle.optimizer.SGD(parameters=model.parameters()), None),
    loss=lambda model, batch: model(batch).mean(),
    evaluate=lambda model: {"mean": float(model[0]._mean[0])},
)
backend.prepare(normalized)
backend.train_step([paddle.to_tensor([[1.0], [3.0 + 2 * backend.rank]])])
own = backend._model[0]._mean.numpy()
found["statistics"] = [backend.evaluate(normalized)["mean"], float(backend.gather(own).mean()), float(own[0])]
found["trainable"] = backend.parameters()
answer(found)
backend.teardown()
"""
    )
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    two, one = run(script, tmp_path / "two", ranks=2), run(script, tmp_path / "one")
    assert len(two["digests"]) == 2
    assert len(set(two["digests"])) == 1
    assert two["sum"] == [2.0, 1.0]
    assert two["each_once"] and one["each_once"]
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-5)
    assert two["auc"] == pytest.approx(one["auc"], abs=1e-5)
    assert two["trainable"] == 2  # a scale and an offset; the two running statistics are not trained
    used, mean, own = two["statistics"]
    assert used == pytest.approx(mean) and own != used


def test_the_image_loader_gives_each_image_once_and_augments_alike_every_time(tmp_path: Path) -> None:
    answer = run(
        """
from PIL import Image
random = np.random.RandomState(0)
for folder, count in (("train", 4), ("val", 3)):
    for label in range(3):
        (Path(folder) / f"n{label}").mkdir(parents=True)
        for index in range(count):
            pixels = random.randint(0, 256, (5 + label, 6 + index, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((60 + 5 * index, 50)).save(Path(folder) / f"n{label}" / f"{index}.jpg")

def batches(split, rank=0, world_size=1, epoch=1, processes=1):
    config = {**RESNET, "channels": 3, "image_size": 32, "decoder_processes": processes}
    backend = types.SimpleNamespace(device="cpu", rank=rank, world_size=world_size)
    _, workload = a_workload(a_case("resnet50", config, path=".", name="imagenet2012"), backend)
    workload.epoch = epoch
    return [(images.numpy(), labels.numpy()) for images, labels in workload.batches(split)]

def images(*args, **options):
    return np.concatenate([images for images, _ in batches(*args, **options)])

whole = images("test", processes=0)
shared = np.concatenate([images("test", rank, 2) for rank in (0, 1)])
first = images("train")
answer({
    "shape": first.shape,
    "batches": [len(labels) for _, labels in batches("test")],
    "labels": sorted(int(label) for rank in (0, 1) for _, labels in batches("test", rank, 2) for label in labels),
    "each_once": len(shared) == len(whole) and {i.tobytes() for i in shared} == {i.tobytes() for i in whole},
    "range": [float(first.min()), float(first.max())],
    "same": bool((first == images("train", processes=0)).all()),
    "other_epoch": bool((first == images("train", epoch=2)).all()),
})
""",
        tmp_path,
    )
    assert answer["shape"] == [12, 3, 32, 32]
    assert answer["batches"] == [4, 4, 1]
    assert answer["labels"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert answer["each_once"] and answer["same"] and not answer["other_epoch"]
    low, high = answer["range"]
    assert -2.2 < low < high < 2.7  # bytes over 255, less ImageNet's mean, over its deviation
