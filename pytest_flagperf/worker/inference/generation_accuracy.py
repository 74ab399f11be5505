"""Whether what an engine generated is what the framework's own eager execution in fp32 would have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.generator import Judged


# Tokens that have to be the reference's, of those that can be compared.
AGREEMENT = 0.99

# Nats between the best and the second best token within which either may be the greedy choice: what the sums of a
# precision, made in another order, are apart at the end of a network.
TIES = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 5e-2, "bf16": 0.25}


@dataclass(frozen=True)
class Agreement:
    """``agreed`` of ``compared`` tokens are the reference's; ``first`` says where the first other one is."""

    agreed: int
    compared: int
    first: str = ""

    @property
    def share(self) -> float:
        """Of the tokens that can be compared."""
        return self.agreed / self.compared if self.compared else 0.0

    def refuse(self, what: str) -> None:
        """Raises ``InvalidMeasurement`` below :data:`AGREEMENT`, and where nothing could be compared."""
        if not self.compared:
            raise InvalidMeasurement(f"{what}: every continuation began with a near-tie, no token could be compared")
        if self.share < AGREEMENT:
            raise InvalidMeasurement(
                f"{what}: {self.share:.1%} of {self.compared} tokens are those of eager fp32, {AGREEMENT:.0%} are "
                f"wanted; {self.first}"
            )


def agreement(pairs: Iterable[tuple[str, Judged, Any]], precision: str) -> Agreement:
    """Over continuations: what each is called, the reference's answer to the prompt (a row), and the tokens found.

    They are compared token by token. Where the first one differs and is the reference's second choice in a near-tie
    (:data:`TIES`), what follows has another beginning and is left out; where it is no near-tie it and all that follows
    are wrong. What was found may be shorter than the reference's.
    """
    tie = TIES.get(precision, TIES["bf16"])
    agreed = compared = 0
    first = ""
    for name, reference, found in pairs:
        expected = reference.tokens[: len(found)]
        differing = np.flatnonzero(expected != found)
        if not len(differing):
            agreed, compared = agreed + len(found), compared + len(found)
            continue
        place = int(differing[0])
        agreed += place
        if reference.gaps[place] <= tie and reference.seconds[place] == found[place]:
            compared += place
            continue
        compared += len(found)
        first = first or (
            f"the first other one is number {place + 1} after {name}: {int(found[place])} instead of "
            f"{int(expected[place])}, which was {reference.gaps[place]:.3g} nats likelier than the next best"
        )
    return Agreement(agreed, compared, first)
