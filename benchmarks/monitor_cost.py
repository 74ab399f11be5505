"""What the monitor costs: its share of a processor, and the samples/s of a training loop with it over those without.

Wide & Deep is trained on every processor of the host, window after window of a second, with and without a monitor
beside it in turn: monitors are stopped and continued, so that windows that are compared follow each other. The monitor
is the one of a real job, once a second: of the vendor ``cpu`` (psutil), and of a vendor with eight devices and a
management program (one process a look). A window without, once more, shows the noise.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import harness_overhead
import paired
import torch

from pytest_flagperf import datasets
from pytest_flagperf.devices import monitor
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.records import read_lines
from pytest_flagperf.worker.main import build_workload
from pytest_flagperf.worker.pytorch import Backend


RATIO = 0.99
SHARE = 0.01
SIDES = ("none", "cpu", "program", "none again")

PROGRAM = """
schema_version = 1
name = "eight"
title = "Eight devices"
precisions = ["fp32"]

[frameworks.pytorch]
device = "eight"

[[probe]]
command = ["eight-smi", "{table}"]
output = "csv"
directories = ["{directory}"]

[output.csv]
format = "csv"
fields = {{ index = "index", name = "name", temperature = "temperature", power = "power", utilization = "use", memory_used = "used", memory_total = "total" }}
units = {{ temperature = "C", power = "W", utilization = "%", memory_used = "MiB", memory_total = "MiB" }}
"""  # noqa: E501 (a table of TOML)


def main() -> int:
    parser = paired.arguments(__doc__, pairs=100)
    parser.add_argument("--window", type=float, default=1.0, help="seconds of one measured window (default: 1)")
    parser.add_argument("--share-for", type=float, default=60.0, help="seconds to watch its own share (default: 60)")
    parser.add_argument("--data-root", type=Path, help="where the datasets are (default: the plugin's)")
    options = parser.parse_args()
    root = options.data_root or Path(os.environ.get("FLAGPERF_DATA_ROOT") or datasets.default_data_root())
    # Every processor works, so the monitor's time is always somebody's.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        files = {"cpu": vendors.bundled() / "cpu" / "vendor.toml", "program": program(directory)}
        report = paired.Report("monitor_cost", {"threads": torch.get_num_threads(), "interval": "1 s"})
        for side, file in files.items():
            used, programs = share(file, directory, options.share_for)
            what = f"{side}: share of one processor over {options.share_for:g} s"
            report.rows.append(paired.Row(what, "ratio", [used], at_most=SHARE))
            if programs:
                report.rows.append(paired.Row(f"{side}: share of the program it runs", "ratio", [programs]))
        report.rows += throughput(files, directory, root, options.window, options.pairs)
        return report.finish(options.json)


def program(directory: Path) -> Path:
    """A vendor whose program prints a table of eight devices: ``cat`` under another name."""
    table = directory / "table.csv"
    rows = [f"{number}, Chip, 41, 120, 25, 2048, 32768" for number in range(8)]
    table.write_text("\n".join(["index, name, temperature, power, use, used, total", *rows]) + "\n")
    tool = shutil.which("cat")
    if tool is None:
        raise SystemExit("there is no cat")
    (directory / "eight-smi").symlink_to(tool)
    file = directory / "eight" / "vendor.toml"
    file.parent.mkdir()
    file.write_text(PROGRAM.format(table=table, directory=directory))
    return file


@contextlib.contextmanager
def watched(file: Path | None, directory: Path) -> Iterator[Path]:
    """A monitor beside the block, past its start-up; none where ``file`` is ``None``."""
    if file is None:
        yield directory
        return
    where = Path(tempfile.mkdtemp(dir=directory))
    devices = range(8) if file.parent.name == "eight" else range(1)
    output = where / monitor.MONITOR
    with monitor.watching(monitor.Spec(str(file), tuple(devices), 1.0, str(output), "benchmark", os.getpid())):
        while not (output.exists() and b'"host"' in output.read_bytes()):
            time.sleep(0.01)
        yield output


def share(file: Path, directory: Path, seconds: float) -> tuple[float, float]:
    """The monitor's processor time over ``seconds``, start-up included, and that of the programs it ran."""
    began = time.monotonic()
    with watched(file, directory) as output:
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    (end,) = [line for line in read_lines(output) if line["event"] == "monitor_end"]
    samples = [line for line in read_lines(output) if line["event"] == "sample"]
    if len(samples) < seconds / 2:
        raise SystemExit(f"the monitor took {len(samples)} samples in {seconds:g} s: it did not do its work")
    elapsed = time.monotonic() - began
    return end["cpu_time"] / elapsed, end["cpu_time_of_programs"] / elapsed


def throughput(files: dict[str, Path], directory: Path, root: Path, window: float, pairs: int) -> list[paired.Row]:
    """Ratios of samples a second, with a monitor over without."""
    case = harness_overhead.describe(harness_overhead.resolve("wide_deep", "fp32"), root)
    context = RankContext(directory / "case.json", directory, rank=0, local_rank=0, world_size=1)
    events = EventWriter(directory / "rank0.events.jsonl", rank=0)
    backend = Backend(context, {**case, "config": {**case["config"], "cpu_threads": torch.get_num_threads()}})
    workload = build_workload(backend, case, events)
    workload.total_steps = 10_000_000
    model = workload.model()
    optimizer, schedule = workload.optimizer(model)
    steps = harness_overhead.bare_loop(workload, model, optimizer, schedule, "fp32")

    def rate(pid: int | None) -> Callable[[], float]:
        def turn() -> float:
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < window:
                next(steps)
                done += 1
            found = done / (time.perf_counter() - began)
            if pid is not None:
                os.kill(pid, signal.SIGSTOP)
            return found

        return turn

    with contextlib.ExitStack() as running:
        pids = {}
        for side, file in files.items():
            output = running.enter_context(watched(file, directory))
            pids[side] = int(read_lines(output)[0]["pid"])
            os.kill(pids[side], signal.SIGSTOP)
            running.callback(os.kill, pids[side], signal.SIGCONT)
        rates = paired.take_turns({side: rate(pids.get(side)) for side in SIDES}, pairs)

    def ratios(side: str) -> list[float]:
        return [other / none for none, other in zip(rates["none"], rates[side], strict=True)]

    return [
        paired.Row("cpu: with / without", "samples/s wall", ratios("cpu"), at_least=RATIO),
        paired.Row("program: with / without", "samples/s wall", ratios("program"), at_least=RATIO),
        paired.Row("without / without (noise)", "samples/s wall", ratios("none again")),
    ]


if __name__ == "__main__":
    sys.exit(main())
