"""The MindSpore adapter and its suites, each in an interpreter of its own: pytest never imports a framework."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


pytestmark = [
    pytest.mark.mindspore,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("mindspore") is None, reason="mindspore is not installed"),
]

ROOT = Path(__file__).parents[2]

# What every script starts with; it answers with one JSON value, on rank 0. A process has one adapter: MindSpore's
# threads can be set once.
PRELUDE = f"""
import json, os, sys, types
from pathlib import Path
import numpy as np
import mindspore as ms
from mindspore import nn, ops
if os.environ.get("MS_ROLE") == "MS_SCHED":
    ms.set_device("CPU")
    ms.communication.init()
    sys.exit()
from pytest_flagperf import errors
from pytest_flagperf import perflog
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.worker import main as worker
from pytest_flagperf.worker.mindspore import AdamW, Backend

SUITES = Path({str(ROOT)!r}) / "suites" / "training"
RANK, WORLD_SIZE = int(os.environ.get("RANK_ID", 0)), int(os.environ.get("MS_WORKER_NUM", 1))
CONTEXT = RankContext(Path("case.json"), Path("."), RANK, RANK, WORLD_SIZE)
RESNET = dict(width=4, channels=1, classes=10, image_size=32, batch_size=4, epochs=2, optimizer="sgd",
    learning_rate=0.1, momentum=0.9, nesterov=False, weight_decay=1e-4, label_smoothing=0.1, warmup_epochs=1)
WIDE_DEEP = dict(embedding_size=4, hidden_sizes=[8], global_batch_size=32, epochs=8, learning_rate=0.01)


def a_case(model, config, path=None, precision="fp32", name="own", **other):
    workload = {{"resnet50": "mindspore:ResNet50", "wide_deep": "mindspore:WideDeep"}}[model]
    return dict(role="convergence", framework="mindspore", model=model, vendor="cpu", seed=1, precision=precision,
        config=config, targets=[], device={{"device": "CPU"}}, directory=str(SUITES / model),
        workload=workload, dataset=dict(name=name, path=path, synthetic=path is None)) | other


def a_workload(case, backend):
    workload = worker.build_workload(backend, case, types.SimpleNamespace(last_written=float("inf")))
    workload.total_steps = 100
    return workload


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
    """What the script answers. With several ranks MindSpore's launcher starts it."""
    (directory / "script.py").write_text(PRELUDE + script, encoding="utf-8")
    command = [sys.executable, "script.py"]
    if ranks > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command[1:1] = ["-m", "mindspore.parallel.cluster.run", f"--worker_num={ranks}", f"--local_worker_num={ranks}"]
        command[-1:-1] = [f"--master_port={port}", "--join=True", "--cluster_time_out=60", "--log_dir=logs"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MS_", "RANK_"))}
    done = subprocess.run(
        command,
        cwd=directory,
        env={
            **inherited,
            # The launcher starts the "python" that it finds.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "GLOG_v": "3",
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    logs = "".join(log.read_text(errors="replace")[-3000:] for log in sorted(directory.glob("logs/worker_*.log")))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + logs
    return json.loads((directory / "answer.json").read_text(encoding="utf-8"))


def test_resnet50_has_the_standard_number_of_parameters_and_lite_is_a_narrow_one(tmp_path: Path) -> None:
    answer = run(
        """
found = {}
backend = Backend(CONTEXT, a_case("resnet50", RESNET))
for scale, config in (("full", dict(width=64, channels=3, classes=1000)), ("lite", dict(width=16))):
    backend.prepare(a_workload(a_case("resnet50", {**RESNET, **config}), backend))
    found[scale] = backend.parameters()
answer(found)
""",
        tmp_path,
    )
    assert answer == {"full": 25_557_032, "lite": 1_484_538}


def test_a_resnet_learns_its_batch_and_says_what_is_in_force(tmp_path: Path) -> None:
    answer = run(
        """
case = a_case("resnet50", {**RESNET, "optimizer": "adamw", "learning_rate": 0.01, "label_smoothing": 0.0})
backend = Backend(CONTEXT, case)
workload = a_workload(case, backend)
workload.total_steps = 12  # the schedule goes down to zero and stays there
backend.prepare(workload)
batch = backend.to_device(next(iter(workload.batches("train"))))
for _ in range(12):
    backend.train_step([batch])
losses, settled = backend.losses(), backend.digests()
backend.train_step([batch])
answer({"losses": losses, "stays": settled == backend.digests(), "precision": backend.precision(),
    "time": backend.core_time, "memory": sorted(backend.memory())})
""",
        tmp_path,
    )
    assert len(set(answer["losses"])) == 12  # one of each step, though read at the end
    assert answer["losses"][-1] < 0.5 * answer["losses"][0]
    assert answer["stays"]
    assert answer["time"] > 0
    assert answer["memory"] == ["memory_peak", "memory_total"]
    assert answer["precision"] == {
        "asked": "fp32",
        "parameters": "Float32",
        "autocast": None,
        "model": "Float32",
        "loss_scaling": False,
        "device_name": "CPU",
    }


def test_only_what_can_be_in_force_is_tried(tmp_path: Path) -> None:
    """On a CPU MindSpore has no bf16 kernels, and computes fp16 in fp32; the adapter refuses both."""
    answer = run(
        """
said = {}
Backend._use_threads = staticmethod(lambda count: None)  # can be set once
for name, precision, dtype in (
    ("tf32", "tf32", ""), ("amp", "amp", ""), ("bf16", "bf16", ""), ("amp_fp16", "amp", "fp16"), ("fp16", "fp16", ""),
    ("int8", "int8", ""), ("fp64", "fp64", "")
):
    device = {"device": "CPU", **({"amp_dtype": dtype} if dtype else {})}
    try:
        Backend(CONTEXT, a_case("resnet50", RESNET, precision=precision, device=device))
    except errors.PrecisionUnavailable as error:
        said[name] = str(error)
try:
    Backend(CONTEXT, a_case("resnet50", RESNET, device={"device": "Abacus"}))
except errors.DeviceUnavailable as error:
    said["device"] = str(error)
answer(said)
""",
        tmp_path,
    )
    assert "a CPU has none" in answer["tf32"]
    assert "int8" in answer["int8"] and "fp64" in answer["fp64"]
    for name in ("amp", "bf16"):
        assert (
            "no BFloat16 on this CPU: Select CPU operator[MatMul] fail! Unsupported data type! It gets" in answer[name]
        )
    for name in ("amp_fp16", "fp16"):
        assert "casts fp16 to fp32" in answer[name]
    assert "sees no Abacus" in answer["device"]


def test_adamw_is_that_of_the_paper_with_bias_correction(tmp_path: Path) -> None:
    answer = run(
        """
random = np.random.RandomState(0)
start = random.standard_normal((5, 3)).astype(np.float32), random.standard_normal(3).astype(np.float32)
decays, rate, steps = (0.1, 0.0), 0.05, 12
parameters = [ms.Parameter(ms.Tensor(value), name=f"p{index}") for index, value in enumerate(start)]
optimizer = AdamW([{"params": [p], "weight_decay": d} for p, d in zip(parameters, decays)], rate)

@ms.jit
def apply(*gradients):
    return optimizer(gradients)

expected = [value.astype(np.float64) for value in start]
moments = [[np.zeros(value.shape), np.zeros(value.shape)] for value in start]
for step in range(1, steps + 1):
    gradients = [10.0 ** -(step % 8) * random.standard_normal(value.shape).astype(np.float32) for value in start]
    apply(*[ms.Tensor(gradient.astype(np.float32)) for gradient in gradients])
    for value, moment, gradient, decay in zip(expected, moments, gradients, decays):
        moment[0] = 0.9 * moment[0] + 0.1 * gradient
        moment[1] = 0.999 * moment[1] + 0.001 * gradient**2
        first, second = moment[0] / (1 - 0.9**step), moment[1] / (1 - 0.999**step)
        value -= rate * (first / (np.sqrt(second) + 1e-8) + decay * value)
answer([float(abs(p.asnumpy() - value).max()) for p, value in zip(parameters, expected)])
""",
        tmp_path,
    )
    assert max(answer) < 1e-5


def test_wide_deep_learns_and_its_auc_is_that_of_the_whole_evaluation_split(tmp_path: Path) -> None:
    answer = run(
        TABULAR
        + """
target = dict(metric="auc", bound=0.95, direction="at least")
Path("case.json").write_text(json.dumps(a_case("wide_deep", WIDE_DEEP, path=".", targets=[target])))
worker.main(CONTEXT)
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
workload = a_workload(case, backend)
backend.prepare(workload)
batches = [backend.to_device(batch) for batch in workload.batches("train")]
for start in range(0, len(batches), accumulation):
    backend.train_step(batches[start : start + accumulation])
seen = backend.gather(np.concatenate([dense for _, dense, _ in workload.batches("test")]))
found = {
    "digests": backend.digests(),
    "sum": backend.sum([2.0**40 + 1, backend.rank]),
    "each_once": sorted(seen[:, 0].tolist()) == sorted(dense[1024:, 0].tolist()),
    "weights": backend._model.deep[0].weight.asnumpy().flatten().tolist(),
    "auc": backend.evaluate(workload)["auc"],
}
# The moving statistics of a rank depend on what it has seen, until an evaluation.
class Normalized:
    def model(self):
        return nn.SequentialCell([nn.BatchNorm1d(1)])
    def optimizer(self, model):
        return nn.SGD(model.trainable_params(), 0.1)
    def loss(self, model, batch):
        return ops.mean(model(batch[0]))
    def evaluate(self, model):
        return {"mean": float(model[0].moving_mean.asnumpy()[0])}

backend._accumulation = 1
backend.prepare(Normalized())
found["statistics"] = []
for _ in range(2):  # the second step goes on from the mean
    backend.train_step([(ms.Tensor(np.array([[1.0], [3.0 + 2 * backend.rank]], np.float32)),)])
    own = backend._model[0].moving_mean.asnumpy().copy()  # else it shows what the evaluation writes
    used = backend.evaluate(Normalized())["mean"]
    found["statistics"].append([used, float(backend.gather(own).mean()), float(own[0])])
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
    assert two["sum"] == [2.0**41 + 2, 1.0]
    assert two["each_once"] and one["each_once"]
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-5)
    assert two["auc"] == pytest.approx(one["auc"], abs=1e-5)
    assert two["trainable"] == 2  # a scale and an offset; the two moving statistics are not trained
    assert two["statistics"] == [pytest.approx([0.25, 0.25, 0.2]), pytest.approx([0.475, 0.475, 0.425])]


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
            image = Image.fromarray(pixels).resize((60 + 5 * index, 50))
            # ImageNet has a few gray images and a few for printers.
            image = image.convert("L") if index == 1 else image.convert("CMYK") if index == 2 else image
            image.save(Path(folder) / f"n{label}" / f"{index}.jpg")

ms.set_device("CPU")

def batches(split, rank=0, world_size=1, epoch=1, processes=2):
    config = {**RESNET, "channels": 3, "image_size": 32, "decoder_processes": processes}
    backend = types.SimpleNamespace(device="CPU", rank=rank, world_size=world_size)
    workload = a_workload(a_case("resnet50", config, path=".", name="imagenet2012"), backend)
    workload.epoch = epoch
    return [(images.asnumpy(), labels.asnumpy()) for images, labels in workload.batches(split)]

def images(*args, **options):
    return np.concatenate([images for images, _ in batches(*args, **options)])

whole = images("test", processes=0)
shared = np.concatenate([images("test", rank, 2, processes=1000) for rank in (0, 1)])
first = images("train")
answer({
    "shape": first.shape,
    "batches": [len(labels) for _, labels in batches("test")],
    "shards": [len(images("train", rank, 2)) for rank in (0, 1)],
    "labels": sorted(int(label) for rank in (0, 1) for _, labels in batches("test", rank, 2) for label in labels),
    "each_once": len(shared) == len(whole) and {i.tobytes() for i in shared} == {i.tobytes() for i in whole},
    "range": [float(first.min()), float(first.max())],
    "same": bool((first == images("train")).all()),
    "other_epoch": bool((first == images("train", epoch=2)).all()),
})
""",
        tmp_path,
    )
    assert answer["shape"] == [12, 3, 32, 32]
    assert answer["batches"] == [4, 4, 1]
    assert answer["shards"] == [4, 4]  # the remainder is left out
    assert answer["labels"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert answer["each_once"] and answer["same"] and not answer["other_epoch"]
    low, high = answer["range"]
    assert -2.2 < low < high < 2.7  # bytes over 255, less ImageNet's mean, over its deviation
