"""Which engines can be used in this interpreter: ``python -P -m pytest_flagperf.worker.inference.present``.

``FRAMEWORK ENGINE...`` are its arguments; the last line it prints is an object, engine →
``{"missing": "", "precisions": [...]}``. ``missing`` says why an engine cannot be used and what to install.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference import registry


def look(framework: str, name: str) -> dict[str, Any]:
    """What an engine says of itself here."""
    try:
        engine = registry.load(framework, name)
    except ConfigurationError as error:
        return {"missing": str(error), "precisions": []}
    return {"missing": engine.available(), "precisions": list(engine.precisions)}


def main(framework: str, *names: str) -> None:
    """Print what the engines say."""
    print("\n" + json.dumps({name: look(framework, name) for name in names}))


if __name__ == "__main__":
    main(*sys.argv[1:])
