"""``--resume``: after a pytest that was killed half-way exactly the missing cases run, and the session is complete."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from pytest_flagperf import Scale
from pytest_flagperf import Topology
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least
from pytest_flagperf import overlay
from pytest_flagperf import result as results
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Selection
from pytest_flagperf.datasets import FoundDataset
from pytest_flagperf.judging import provenance
from pytest_flagperf.judging import resume
from pytest_flagperf.provision import Data
from pytest_flagperf.provision import Devices
from pytest_flagperf.reports import html
from pytest_flagperf.result import WeightsInfo
from pytest_flagperf.weights import FoundWeights
from tests.conftest import wait_for
from tests.test_result import make


NODE = "suite/test_toy.py::test_converges[pytorch-fp32-1x1-lite]"


def toy(directory: Path, *, bound: float = 0.9, **config: object) -> ResolvedCase:
    """The case of ``tests.test_result.make``, with a workload that exists."""
    (directory / "toy.py").touch()
    scale = Scale("digits", [at_least("top1", bound, source="toy")], config={"batch_size": 8, "x": None, **config})
    case = overlay.resolve(
        TrainingCase(model="toy", title="Toy", workloads={"pytorch": "toy:Toy"}, scales={"lite": scale}),
        Selection("pytorch", "fp32", Topology(1, 1), "lite"),
        role="convergence",
        vendor="cpu",
        overlay=None,
        targets={},
        directory=directory,
    )
    return replace(case, node_id=NODE)


@pytest.fixture
def earlier(tmp_path: Path) -> Callable[..., resume.Resume]:
    """Writes a session with one result, and opens it for ``--resume``."""

    def write(**changes: object) -> resume.Resume:
        made = make(tmp_path)
        case = msgspec.structs.replace(made.case, node_id=NODE)
        told = {"code": provenance.digest(toy(tmp_path)), "stack": {"torch": "2.9.0"}, "case": case, **changes}
        directory = tmp_path / "earlier" / case.id
        (directory / "round1" / "host").mkdir(parents=True)
        (directory / "round1" / "host" / "rank0.events.jsonl").write_text("{}\n")
        (directory.parent / "session.json").write_text('{"session": "earlier"}')
        results.write_result(directory, msgspec.structs.replace(made, **told))
        return resume.Resume(directory.parent)

    return write


def offer(session: resume.Resume, case: ResolvedCase, *, rounds: int = 1, torch: str = "2.9.0") -> resume.Offer:
    return session.case(case, provenance.digest(case), {"torch": torch}, rounds)


def test_a_valid_result_of_the_same_code_and_configuration_is_taken(earlier, tmp_path):
    assert offer(earlier(), toy(tmp_path)).result is not None


def test_a_test_that_the_session_does_not_have_runs_without_a_word(earlier, tmp_path):
    found = offer(earlier(), replace(toy(tmp_path), node_id="suite/test_toy.py::test_other"))
    assert (found.result, found.reason) == (None, "")


@pytest.mark.parametrize(
    ("outcome", "error"), [("invalid", None), ("invalid", results.ErrorResult("RankCrashed", "rank 0 ended"))]
)
def test_what_was_no_measurement_runs_again_and_its_rounds_are_told(earlier, tmp_path, outcome, error):
    found = offer(earlier(verdict=outcome, error=error), toy(tmp_path))
    assert found.result is None
    assert found.reason.startswith(f"not taken from session earlier: it is {outcome} there; rounds that exist there")
    assert found.reason.endswith("earlier: round 1 (seed 1, finished)")
    assert found.rounds == ("earlier: round 1 (seed 1, finished)",)


@pytest.mark.parametrize(
    "outcome",
    ["missed", "regressed", "wrong", "improved", "inconclusive", "no baseline", "not comparable", "unsupported"],
)
def test_every_valid_measurement_is_taken_whether_it_is_liked_or_not(earlier, tmp_path, outcome):
    assert offer(earlier(verdict=outcome), toy(tmp_path)).result is not None


def test_a_run_that_was_stopped_for_leaving_its_band_is_a_measurement_too(earlier, tmp_path):
    error = results.ErrorResult("Regressed", "stopped early")
    assert offer(earlier(verdict="regressed", error=error), toy(tmp_path), rounds=5).result is not None


def ledger(session: resume.Resume, *lines: dict[str, object]) -> resume.Resume:
    path = session.directory / "ledger.jsonl"
    path.write_text("".join(json.dumps({"case": "toy", "test": NODE, **line}) + "\n" for line in lines))
    return resume.Resume(session.directory)


def test_rounds_of_a_test_without_a_result_are_told_and_those_of_still_earlier_sessions_too(earlier, tmp_path):
    session = earlier()
    shutil.rmtree(next(session.directory.glob("*/round1")).parent)
    session = ledger(
        session,
        {"event": "elsewhere", "rounds": ["first: round 1 (seed 1, RankCrashed)"]},
        {"event": "round_start", "round": 1, "seed": 1, "directory": "/x/toy/round1"},
    )
    found = offer(session, toy(tmp_path))
    assert found.rounds == ("first: round 1 (seed 1, RankCrashed)", "earlier: round 1 (seed 1, not ended)")
    assert found.reason.startswith("not taken from session earlier: it has no result; rounds that exist")


def test_what_earlier_notes_say_of_rounds_elsewhere_is_kept(earlier, tmp_path):
    note = "not taken from session first: it is invalid there; rounds that exist there and do not count here: first: x"
    assert "first: x, earlier: round 1" in offer(earlier(verdict="invalid", notes=[note]), toy(tmp_path)).reason


class Here:
    """What is here now, as a session knows it."""

    def __init__(self, **changes: object) -> None:
        known: dict[str, object] = {"chip": "A1", "hardware": "EPYC", "sha256": "5e4", "environment": {"X": "1"}}
        known |= {"image": None, **changes}
        self.chip = (known["chip"], None) if known["chip"] else None
        self.gate = SimpleNamespace(hardware=known["hardware"])
        self.vendor = SimpleNamespace(frameworks={"pytorch": None})
        self.vendor_file = {"path": "/x", "sha256": known["sha256"]}
        self.options = SimpleNamespace(container=known["image"])
        self.environment = known["environment"]

    def vendor_environment(self, framework: str) -> object:
        assert framework == "pytorch"
        return self.environment


THEN = {
    "chip": "A1",
    "vendor_file": {"sha256": "5e4"},
    "environment": {"X": "1"},
    "devices": [0, 1],
}


def at(session: resume.Resume, case: ResolvedCase, here: Here, devices: Devices, dataset: Data) -> resume.Offer:
    code = provenance.digest(case)
    return session.case(case, code, {}, 1, dataset=dataset, devices=devices, session=here)


def digits(name: str = "digits", checksum: str = "c0ffee", *, synthetic: bool = False) -> Data:
    found = None if synthetic else FoundDataset(name, Path(), {}, checksum, verified=True)
    return Data(name, found, synthetic)


@pytest.mark.parametrize(
    ("then", "here", "devices", "dataset", "reason"),
    [
        ({}, {}, {}, {}, ""),
        ({"vendor": "acme"}, {}, {}, {}, "vendor was 'acme', is 'cpu'"),
        ({"stand_in": "cpu"}, {}, {}, {}, "stand-in device was 'cpu', is ''"),
        ({}, {"chip": "B2"}, {}, {}, "chip was 'A1', is 'B2'"),
        ({"chip": None}, {"chip": None, "hardware": "Xeon"}, {}, {}, "hardware was 'EPYC', is 'Xeon'"),
        ({}, {}, {"wanted": 1}, {}, "number of devices was 2, is 1"),
        ({}, {}, {"available": (1, 2)}, {}, "the devices were 0, 1, and 1, 2 are available now"),
        ({}, {"sha256": "f11e"}, {}, {}, "vendor file (sha256) was '5e4', is 'f11e'"),
        ({}, {"environment": {"X": "2"}}, {}, {}, "environment variable X was '1', is '2'"),
        ({}, {"environment": {}}, {}, {}, "environment variable X was '1', is None"),
        ({"container": {"image": "torch:1"}}, {}, {}, {}, "container image was 'torch:1', is None"),
        ({}, {"image": "torch:2"}, {}, {}, "container image was None, is 'torch:2'"),
        ({}, {}, {}, {"name": "letters"}, "dataset was 'digits', is 'letters'"),
        ({}, {}, {}, {"checksum": "decaf"}, "checksum of dataset digits was 'c0ffee', is 'decaf'"),
        ({}, {}, {}, {"synthetic": True}, "synthetic data was False, is True"),
    ],
)
def test_a_result_of_other_hardware_data_or_surroundings_is_not_taken_and_what_differs_is_named(
    earlier, tmp_path, then, here, devices, dataset, reason
):
    made = make(tmp_path)
    case = msgspec.structs.replace(made.case, node_id=NODE, **{**THEN, "vendor": "cpu", **then})
    session = earlier(case=case, dataset=results.DatasetInfo("digits", synthetic=False, checksum="c0ffee"))
    session.hardware = "EPYC"
    now = Devices(then.get("vendor", "cpu"), **{"available": (0, 1), "wanted": 2, **devices})
    found = at(session, toy(tmp_path), Here(**here), now, digits(**dataset))
    assert (found.result is not None) == (not reason)
    assert reason in found.reason


def weighed(session: resume.Resume, case: ResolvedCase, weights: FoundWeights) -> resume.Offer:
    data = replace(digits(checksum=""), weights=weights)
    return session.case(case, provenance.digest(case), {}, 1, dataset=data)


@pytest.mark.parametrize(
    ("then", "now", "reason"),
    [
        (WeightsInfo("w", "--weights w=/a", "c0ffee"), FoundWeights("w", Path("/b"), "--weights w=/b", "c0ffee"), ""),
        (WeightsInfo("w", "random"), FoundWeights("w"), ""),
        (WeightsInfo("", "random"), FoundWeights(""), ""),
        (
            WeightsInfo("w", "random"),
            FoundWeights("w", Path("/b"), "trained here", "c0ffee"),
            "random weights was True, is False",
        ),
        (WeightsInfo("w", "trained here", "c0ffee"), FoundWeights("w"), "random weights was False, is True"),
        (
            WeightsInfo("w", "--weights w=/a", "c0ffee"),
            FoundWeights("w", Path("/a"), "--weights w=/a", "decaf"),
            "checksum of weights w was 'c0ffee', is 'decaf'",
        ),
        (WeightsInfo("v", "random"), FoundWeights("w"), "weights was 'v', is 'w'"),
        (None, FoundWeights("w"), "weights was None, is 'w'"),
    ],
)
def test_a_result_of_other_weights_is_not_taken_and_what_differs_is_named(earlier, tmp_path, then, now, reason):
    session = earlier(weights=then, dataset=results.DatasetInfo("digits", synthetic=False))
    found = weighed(session, toy(tmp_path), now)
    assert (found.result is not None) == (not reason)
    assert reason in found.reason


def test_what_changed_since_is_named(earlier, tmp_path):
    session = earlier()
    assert "the configuration changed: batch_size was 8, is 16" in offer(session, toy(tmp_path, batch_size=16)).reason
    assert "the targets changed" in offer(session, toy(tmp_path, bound=0.8)).reason
    assert "torch 2.9.0 then, 2.10.0 now" in offer(session, toy(tmp_path), torch="2.10.0").reason
    assert "it has 1 of 5 rounds" in offer(session, toy(tmp_path), rounds=5).reason
    (tmp_path / "toy.py").write_text("# another one\n")
    assert "the workload's code changed; rounds that exist there" in offer(session, toy(tmp_path)).reason


def test_a_module_that_the_workload_imports_is_part_of_its_code(tmp_path):
    case = toy(tmp_path)
    (tmp_path / "toy.py").write_text("from .layers import attention\n")
    (tmp_path / "layers.py").write_text("one = 1\n")
    before = provenance.digest(case)
    (tmp_path / "unrelated.py").write_text("two = 2\n")
    assert provenance.digest(case) == before
    (tmp_path / "layers.py").write_text("one = 2\n")
    assert provenance.digest(case) != before


def test_the_digest_does_not_depend_on_where_the_suite_lies(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    assert provenance.digest(toy(tmp_path / "here")) == provenance.digest(toy(tmp_path / "there"))


def test_a_result_that_is_taken_brings_its_files_and_says_where_it_is_from(earlier, tmp_path):
    session, new = earlier(), tmp_path / "new"
    new.mkdir()
    taken = session.take(offer(session, toy(tmp_path)), new)
    assert (new / "round1" / "host" / "rank0.events.jsonl").read_text() == "{}\n"
    assert [one.directory for one in taken.rounds] == [str(new / "round1")]
    assert taken.notes == ["resumed: taken from session earlier, not run again"]
    assert json.loads((new / "resumed.json").read_text())["session"] == "earlier"
    # Taken once more from there: one note, of where it was taken from last.
    assert resume.noted(taken.notes, "resumed: taken from session new, not run again") == [
        "resumed: taken from session new, not run again"
    ]


# --- the real thing


@pytest.fixture
def two_models(suite: Path) -> Path:
    """The linear suite, and the same once more as a model whose training a switch makes endless."""
    text = (suite / "test_linear.py").read_text()
    text = text.replace('model="linear"', 'model="slow"').replace("LINEAR_", "SLOW_")
    (suite / "test_slow.py").write_text(text.replace("def test_throughput", "def test_steps"))
    return suite


def started(session: Path) -> list[str]:
    lines = [json.loads(line) for line in (session / "ledger.jsonl").read_text().splitlines()]
    return sorted(line["case"] for line in lines if line["event"] == "round_start")


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.parametrize("mode", [[], ["-n", "2"]], ids=["serial", "n2"])
def test_after_a_sigkill_half_way_exactly_the_missing_cases_run(two_models, mode, monkeypatch, marked):
    results_directory = two_models.parent / "results"
    command = [sys.executable, "-m", "pytest", "suite", "-p", "no:cacheprovider", *mode]
    command.append(f"--flagperf-dir={results_directory}")
    monkeypatch.setenv("SLOW_FAULT", "endless")
    monkeypatch.setenv("SLOW_EPOCHS", "10000")
    process = subprocess.Popen(
        command, cwd=two_models.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

    def half_way() -> bool:
        training = [path.read_text() for path in results_directory.glob("*/slow-*/round1/*/rank0.events.jsonl")]
        finished = list(results_directory.glob("*/linear-*/result.json"))
        return len(finished) == 2 and any("STEP_END" in text for text in training)

    assert wait_for(lambda: half_way() or process.poll() is not None, 90)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_for(lambda: not marked(), 20), marked()
    (killed,) = results_directory.iterdir()
    # Whatever there is of the slow model has the switch in its configuration: it is another case than what runs next.
    have = {path.parent.name for path in killed.glob("linear-*/result.json")}

    monkeypatch.delenv("SLOW_FAULT")
    monkeypatch.delenv("SLOW_EPOCHS")
    done = subprocess.run(
        [*command, f"--resume={killed.name}", "--junitxml=junit.xml"],
        cwd=two_models.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (resumed,) = (path for path in results_directory.iterdir() if path != killed)
    every = {f"{model}-{role}-pytorch-fp32-1x1-lite" for model in ("linear", "slow") for role in ROLES}
    assert have == {"linear-convergence-pytorch-fp32-1x1-lite", "linear-throughput-pytorch-fp32-1x1-lite"}
    assert started(resumed) == sorted(every - have)
    assert {path.parent.name for path in resumed.glob("*/result.json")} == every
    taken = {path.parent.name for path in resumed.glob("*/resumed.json")}
    assert taken == have
    for name in taken:
        then, now = (results.read_result(session / name / "result.json") for session in (killed, resumed))
        assert now.metrics == then.metrics
        assert Path(now.rounds[0].directory).is_relative_to(resumed)
    assert done.stdout.count("passed (resumed)") == len(taken)
    shown = [case["id"] for case in html.data([killed, resumed])["cases"]]
    assert sorted(shown) == sorted(every), "the report of both sessions shows each case once"
    assert (two_models.parent / "junit.xml").read_text().count('name="flagperf.resumed"') == len(taken)


ROLES = ("convergence", "throughput")


def test_what_is_no_session_is_a_usage_error_that_says_so(pytester):
    pytester.makepyfile("def test_it(): pass")
    done = pytester.runpytest_subprocess("--resume=nowhere")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "--resume: " in done.stderr.str()
    assert "is no session" in done.stderr.str()
    assert "Traceback" not in done.stderr.str()
