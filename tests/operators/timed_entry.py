"""The worker that measures nothing, told from outside how long each call takes, or what goes wrong with it.

``ORDERS`` in its environment names a JSON file: m of the product → an order for each time that it is measured, the last
one for all that follow. An order is a time in µs or one of ``fake_entry``'s faults. Log and samples are as those of the
real worker, so that a session of it can be verified.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf.operators.problems import from_json
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker.operators.measure import Measurement


sys.path.insert(0, str(Path(__file__).parent))

import fake_entry


served: Counter[str] = Counter()
faulty = fake_entry.answer


def main(context: Any) -> None:
    """Answer until told to end."""
    events = EventWriter(Path(context.host_dir) / f"rank{context.rank}.events.jsonl", context.rank)

    def told(request: dict[str, Any]) -> dict[str, Any]:
        """The reply, with the events that the real worker writes before and after it."""
        problem = from_json(request["problem"])
        what = f"{problem.family} {problem.id} {request['precision']} {request['direction']}"
        events.write(perflog.PROGRESS, {"what": what, "done": 0, "total": 1})
        reply = answer(request)
        events.write(perflog.PROGRESS, {"what": what, "done": 1, "total": 1, "status": reply["status"]})
        return reply

    fake_entry.answer = told
    fake_entry.main(context)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply that is ordered for this call."""
    size = str(request["problem"]["m"])
    orders = json.loads(Path(os.environ["ORDERS"]).read_text())[size]
    order = orders[min(served[size], len(orders) - 1)]
    served[size] += 1
    if isinstance(order, str):
        return faulty({"problem": {"application": order}})
    reply = fake_entry.measured()
    samples = (0.99 * order, order, 1.01 * order)
    reply["figures"] |= Measurement(samples, samples, 1, "", 0).figures()
    kept = {"samples": list(samples), "iterations": len(samples)}
    return {**reply, **kept, "notes": [f"call {served[size]} took {order} µs"]}
