"""Weights made once on this machine by our own training: a job like any other, and a folder beside the datasets.

The folder is complete or not there at all, is verified at every use, and is made anew where the training changed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_flagperf import children
from pytest_flagperf import datasets
from pytest_flagperf import overlay
from pytest_flagperf import perflog
from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf import suites
from pytest_flagperf import weights
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.datasets import FoundDataset
from pytest_flagperf.datasets.storage import explained
from pytest_flagperf.datasets.storage import locked
from pytest_flagperf.datasets.storage import sync
from pytest_flagperf.devices.vendor import Container as Described
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.judging import provenance
from pytest_flagperf.launch import containers
from pytest_flagperf.launch import runtimes
from pytest_flagperf.launch.containers import Container
from pytest_flagperf.launch.diagnosis import failure
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import run_job
from pytest_flagperf.session import Session
from pytest_flagperf.session import masked_environment
from pytest_flagperf.weights import FoundWeights
from pytest_flagperf.weights import WeightsSet


FOLDER = "weights"
FRAMEWORK = "pytorch"


def locate(session: Session, name: str, say: Callable[[str], None]) -> FoundWeights:
    """The weights ``name``: where the user says, in a package, or made here.

    Raises ``DatasetError`` (missing, corrupt, the training failed) or ``ConfigurationError`` (unknown name).
    """
    one = weights.get(name)
    given = session.options.weights.get(name)
    if given == weights.RANDOM:
        return FoundWeights(name)
    if given is not None:
        return weights.of_user(one, Path(given))
    if one.package is not None:
        return weights.of_package(one)
    if one.recipe is None:
        raise DatasetError(f"weights {name} ({one.title}) have to be given. {one.how_to_get}")
    return _made(session, one, say)


def _made(session: Session, one: WeightsSet, say: Callable[[str], None]) -> FoundWeights:
    case = training(one)
    code, folder = provenance.digest(case), session.data_root / FOLDER / one.name
    try:
        return weights.read_made(one, folder, code)
    except DatasetError:
        data = datasets.locate(
            case.scale.dataset, overrides=_real(session.options.datasets), data_root=session.data_root, say=say
        )
    what = f"weights-{one.name}"
    with explained(what, session.data_root), locked(session.data_root, what, say) as lock:
        weights.remove_abandoned(folder)
        try:
            return weights.read_made(one, folder, code)
        except DatasetError as error:
            say(f"training weights {one.name} (once per machine: {error}) ...")
        temporary = folder.with_name(f".{one.name}.{uuid.uuid4().hex[:12]}")
        temporary.mkdir(parents=True)
        try:
            _train(session, one, case, data, temporary / weights.FILE, code, lock)
            for path in (*sorted(temporary.iterdir()), temporary):
                sync(path)
            if folder.exists():
                os.rename(folder, folder.with_name(f".{one.name}.replaced-{uuid.uuid4().hex[:12]}"))
            os.rename(temporary, folder)
            sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            weights.remove_abandoned(folder)
        return weights.read_made(one, folder, code)


def _real(given: Mapping[str, str]) -> dict[str, str]:
    """Where datasets are; weights are never trained on synthetic data."""
    return {name: path for name, path in given.items() if path != "synthetic"}


def training(one: WeightsSet) -> ResolvedCase:
    """The training that the weights are made by. Raises ``ConfigurationError`` where there is none such."""
    recipe = one.recipe
    assert recipe is not None
    directory = recipe.suite or suites.bundled() / "training" / recipe.model
    found = [f for f in suites.load(directory) if f.case is not None and f.case.kind == "training"]
    chosen = next((f for f in found if f.case.model == recipe.model), None)
    if chosen is None or recipe.scale not in chosen.case.scales or FRAMEWORK not in chosen.case.workloads:
        raise ConfigurationError(
            f"weights {one.name}: {directory} has no training case {recipe.model} of scale {recipe.scale} in "
            f"{FRAMEWORK}"
        )
    return overlay.resolve(
        chosen.case,
        Selection(FRAMEWORK, "fp32", Topology(1, 1), recipe.scale),
        role="convergence",
        vendor="cpu",
        overlay=None,
        targets={},
        directory=chosen.path.parent.resolve(),
    )


def _train(
    session: Session, one: WeightsSet, case: ResolvedCase, data: FoundDataset, path: Path, code: str, lock: int
) -> None:
    """Train, and write the weights to ``path`` with a manifest beside them."""
    recipe = one.recipe
    assert recipe is not None
    directory = session.open() / FOLDER / f"{one.name}-{uuid.uuid4().hex[:6]}"
    host_dir = directory / "host"
    host_dir.mkdir(parents=True)
    case_file = directory / "case.json"
    # In a container no other directory of the host can be written to.
    written = host_dir / weights.FILE
    records.write_json(case_file, _document(case, data, recipe.seed, written))
    container = _container(session, case, data)
    began = time.time()
    outcome = run_job(
        JobSpec(
            engine="single",
            python=session.python(FRAMEWORK) if container is None else _python_in_image(session),
            case_file=case_file,
            host_dir=host_dir,
            nproc=1,
            env=_environment(case, container),
            stall_timeout=session.options.stall_timeout,
            # A job that outlives this process keeps the lock.
            lease_fds=(lock,),
            container=container,
        )
    )
    failed = failure(outcome, host_dir)
    if failed is not None:
        raise _failed(one, failed)
    finished = next(e for e in perflog.read_events(host_dir / "rank0.events.jsonl") if e.name == perflog.FINISHED)
    quality = {name[len("final_") :]: value for name, value in finished.value.items() if name.startswith("final_")}
    told = ", ".join(f"{name} {value:.4f}" for name, value in quality.items())
    if not finished.value.get("converged"):
        targets = ", ".join(map(str, case.targets))
        raise DatasetError(f"weights {one.name}: their training ended with {told}, below its target {targets}")
    shutil.move(written, path)
    manifest = {
        "weights": one.name,
        "sha256": weights.sha256(path),
        "code": code,
        "quality": quality,
        "origin": f"{weights.TRAINED}: {case.model} {recipe.scale}, seed {recipe.seed}, on {data.name} ({told})",
        "dataset": {"name": data.name, "checksum": data.checksum},
        "seed": recipe.seed,
        "stack": provenance.recorded([directory]),
        "time": began,
        "seconds": round(outcome.ended - outcome.started, 1),
    }
    (path.parent / weights.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _failed(one: WeightsSet, failed: FlagPerfError) -> DatasetError:
    error = DatasetError(f"weights {one.name} could not be trained here: {failed}")
    error.__cause__ = failed
    return error


def _document(case: ResolvedCase, data: FoundDataset, seed: int, path: Path) -> dict[str, Any]:
    """The ``case.json`` of the training: on the host's processor, whatever the session's devices are."""
    return {
        "schema_version": results.SCHEMA_VERSION,
        "id": case.id,
        "kind": case.case.kind,
        "model": case.model,
        "role": case.role,
        "framework": FRAMEWORK,
        "precision": case.selection.precision,
        "topology": str(case.selection.topology),
        "scale": case.selection.scale,
        "vendor": "cpu",
        "seed": seed,
        "directory": str(case.directory),
        "workload": case.workload,
        "config": case.config,
        "parameters": case.scale.parameters,
        "targets": [{"metric": t.metric, "bound": t.bound, "direction": t.direction} for t in case.targets],
        "device": {"device": "cpu", "backend": "gloo"},
        "dataset": {"name": data.name, "synthetic": False, "path": str(data.path)},
        "weights_to": str(path),
    }


def _container(session: Session, case: ResolvedCase, data: FoundDataset) -> Container | None:
    """That of ``--container``, whose image has the framework; the training needs none of the vendor's devices."""
    options = session.options
    if options.container is None or options.container_runtime is None:
        return None
    return runtimes.prepare(options.container_runtime, options.container, Described(), (), [case.directory, data.path])


def _python_in_image(session: Session) -> str:
    return session.options.pythons.get(FRAMEWORK, containers.PYTHON)


def _environment(case: ResolvedCase, container: Container | None) -> dict[str, str]:
    ours = {name: os.environ[name] for name in masked_environment(os.environ)}
    environment = children.without_pytest() if container is None else containers.carried(ours)
    threads = str(case.config.get("cpu_threads") or len(os.sched_getaffinity(0)))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = threads
    return {**environment, "PYTHONUNBUFFERED": "1"}
