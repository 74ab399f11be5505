"""Engines of inference as pytest sees them: which can be used, asked in the interpreter that is to use them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from pytest_flagperf import children
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference import registry


_MODULE = "pytest_flagperf.worker.inference.present"
# Seconds. An engine of another package may import its framework to answer.
_PATIENCE = 120.0


@dataclass(frozen=True)
class Seen:
    """What an engine says of itself: why it cannot be used, or an empty text, and the precisions it has."""

    missing: str = ""
    precisions: tuple[str, ...] = ()


def look(python: str, framework: str) -> dict[str, Seen]:
    """Every engine of the framework in that interpreter. Raises ``ConfigurationError`` where it cannot be asked."""
    names = [engine for other, engine in registry.known() if other == framework]
    command = [python, "-P", "-m", _MODULE, framework, *names]
    try:
        done = subprocess.run(
            command,
            env=children.environment(children.without_pytest()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
        told = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        said = done.stderr.strip()[-2000:] if isinstance(error, ValueError) else ""
        raise ConfigurationError(
            f"{python} did not tell which engines it has for {framework}: {error}" + (f"\n{said}" if said else "")
        ) from error
    return {name: Seen(one["missing"], tuple(one["precisions"])) for name, one in told.items()}
