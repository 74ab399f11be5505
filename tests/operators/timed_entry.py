"""The worker that measures nothing, told from outside how long each call takes, or what goes wrong with it.

``ORDERS`` in its environment names a JSON file: m of the product → an order for each time that it is measured, the last
one for all that follow. An order is a time in µs or one of ``fake_entry``'s faults.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any


sys.path.insert(0, str(Path(__file__).parent))

import fake_entry


served: Counter[str] = Counter()
faulty = fake_entry.answer


def main(context: Any) -> None:
    """Answer until told to end."""
    fake_entry.answer = answer
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
    reply["figures"] |= {"time": order, "time_mean": order, "time_min": order, "time_p99": order, "wall_time": order}
    return {**reply, "samples": [order], "iterations": 1, "notes": [f"call {served[size]} took {order} µs"]}
