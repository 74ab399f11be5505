"""How often the comparison with a baseline errs: false alarms without a change, and slowdowns that are not seen.

Rounds are drawn from the noise of real ones (``noise.json``), scaled to a coefficient of variation of 2 %, about the
level of their session, which is normal and deviates by 0, 1 or 2 %: some sessions make the baseline, five rounds of one
more the new result, with a slowdown of 5 % and without. Each draw goes through the code that judges. A rate is shown
with its interval of 95 % (Clopper and Pearson), and the bounds hold where that holds them as a whole.

``--measure SESSION...`` makes ``noise.json`` anew from sessions with rounds and with operators.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any

import paired
from tabulate import tabulate

from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gate
from pytest_flagperf.judging import statistics


NOISE = Path(__file__).with_name("noise.json")

FALSE_ALARMS = 0.01
CAUGHT = 0.95

CV = 0.02
SLOWDOWN = 1.05
TOLERANCE = 0.05
ROUNDS = 5
# Stored sessions, and rounds of each.
LAYOUTS = ((1, 5), (1, 20), (4, 5), (8, 5), (20, 5), (20, 1))
# By how much sessions deviate, as a coefficient of variation.
BETWEEN = (0.0, 0.01, 0.02)
# That slowdowns are caught is claimed of so many sessions of so many rounds, where sessions do not deviate.
CLAIMED = (20, 5)

# Rounds that a case may have with --on-inconclusive=rerun.
MOST_ROUNDS = 10

VERDICTS = (verdict.REGRESSED, verdict.IMPROVED, verdict.INCONCLUSIVE)

Draw = Callable[[int], list[float]]


@dataclass(frozen=True)
class Rate:
    """How many draws of a kind got a verdict, and the bound on their share."""

    noise: str
    sessions: int
    rounds: int
    between: float
    change: str
    rerun: bool
    verdict: str
    count: int
    draws: int
    at_most: float | None = None
    at_least: float | None = None

    @property
    def share(self) -> float:
        """The rate."""
        return self.count / self.draws

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's, 95 %."""
        return clopper_pearson(self.count, self.draws)

    @property
    def outcome(self) -> str:
        """Whether the bound holds, with the interval as a whole; empty without one."""
        low, high = self.interval
        if self.at_most is None and self.at_least is None:
            return ""
        holds = high <= self.at_most if self.at_most is not None else low >= (self.at_least or 0)
        fails = low > self.at_most if self.at_most is not None else high < (self.at_least or 0)
        return "holds" if holds else "DOES NOT HOLD" if fails else "undecided"


@dataclass
class Tally:
    """The verdicts of many comparisons."""

    verdicts: dict[str, int] = field(default_factory=dict)

    def add(self, found: str) -> None:
        """Count one more."""
        self.verdicts[found] = self.verdicts.get(found, 0) + 1

    def of(self, name: str) -> int:
        """How many had this verdict."""
        return self.verdicts.get(name, 0)


def main() -> int:
    options = arguments()
    if options.measure:
        NOISE.write_text(json.dumps(measured(options.measure), indent=1) + "\n", encoding="utf-8")
        print(f"wrote {NOISE}")
        return 0
    noise = json.loads(NOISE.read_text(encoding="utf-8"))
    chance = random.Random(options.seed)
    rates = [
        rate
        for name, claimed, draw in sources(noise["pools"], chance)
        for layout in LAYOUTS
        for between in BETWEEN
        for rate in rates_of(Setting(name, draw, *layout, between, chance), options.draws, claimed=claimed)
    ]
    show(rates)
    in_order(noise["order"])
    if options.json is not None:
        rows = [{**asdict(one), "share": one.share, "interval": one.interval, "outcome": one.outcome} for one in rates]
        document = {"schema_version": 1, "benchmark": "gate", "draws": options.draws, "seed": options.seed}
        options.json.write_text(json.dumps({**document, "machine": paired.machine(), "rows": rows}, indent=1) + "\n")
    return 1 if any(one.outcome not in ("", "holds") for one in rates) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=2_000, metavar="N", help="comparisons of a kind (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="of the draws (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE as well")
    parser.add_argument("--measure", type=Path, nargs="+", metavar="SESSION", help="make noise.json of these, no more")
    return parser.parse_args()


def sources(pools: Mapping[str, Any], chance: random.Random) -> Iterator[tuple[str, bool, Draw]]:
    """The noise to draw from, and whether a slowdown in it is claimed to be caught.

    What was measured, and the normal distribution, which the bounds of a textbook are for. Noise that is never as large
    as 2 % where it comes from is claimed at its own size too, and only there.
    """
    yield "normal", True, lambda count: figures([chance.gauss(0.0, 1.0) for _ in range(count)], CV)
    for name, pool in pools.items():
        values, own = pool["residuals"], pool["own_cv"]
        claimed = pool["judged"] and own > CV / 2

        def draw(count: int, cv: float = CV, values: Sequence[float] = values) -> list[float]:
            return figures(chance.choices(values, k=count), cv)

        yield name, claimed, draw
        if pool["judged"] and not claimed:
            yield f"{name}, own CV {own:.1%}", True, partial(draw, cv=own)


@dataclass(frozen=True)
class Setting:
    """What is drawn: the noise of rounds, how many sessions of how many of them are stored, how far these deviate."""

    noise: str
    draw: Draw
    sessions: int
    rounds: int
    between: float
    chance: random.Random

    def one(self) -> tuple[dict[str, list[float]], list[float]]:
        """A baseline and the rounds of a new session."""
        stored = {str(number): self._session(self.rounds) for number in range(self.sessions)}
        return stored, self._session(MOST_ROUNDS)

    def _session(self, rounds: int) -> list[float]:
        level = math.exp(self.chance.gauss(0.0, self.between)) if self.between else 1.0
        return [level * one for one in self.draw(rounds)]


def rates_of(setting: Setting, draws: int, *, claimed: bool) -> Iterator[Rate]:
    """The rates of a setting; where it is claimed, that a slowdown is caught has its bound too."""
    claimed = claimed and (setting.sessions, setting.rounds) == CLAIMED and not setting.between
    for slower in (1.0, SLOWDOWN):
        first, last = Tally(), Tally()
        for _ in range(draws):
            stored, new = setting.one()
            new = [slower * one for one in new]
            first.add(judged(new[:ROUNDS], stored))
            last.add(rerun(new, stored))
        change = "none" if slower == 1 else f"{slower - 1:.0%} slower"
        known = (setting.noise, setting.sessions, setting.rounds, setting.between, change)
        for tally, again in ((first, False), (last, True)):
            for found in (verdict.REGRESSED, verdict.IMPROVED, verdict.INCONCLUSIVE):
                most = FALSE_ALARMS if slower == 1 and found != verdict.INCONCLUSIVE else None
                least = CAUGHT if slower > 1 and found == verdict.REGRESSED and claimed else None
                yield Rate(*known, again, found, tally.of(found), draws, most, least)


def figures(residuals: Sequence[float], cv: float) -> list[float]:
    """Times of rounds with a coefficient of variation."""
    return [math.exp(cv * one) for one in residuals]


def judged(new: Sequence[float], stored: Mapping[str, Sequence[float]]) -> str:
    return compare.decide(new, stored, "lower", TOLERANCE).verdict


def rerun(new: Sequence[float], stored: Mapping[str, Sequence[float]]) -> str:
    """The verdict with --on-inconclusive=rerun, up to ten rounds."""
    count = ROUNDS
    while True:
        found = judged(new[:count], stored)
        more = gate.next_rounds(count, MOST_ROUNDS)
        if found != verdict.INCONCLUSIVE or more == count:
            return found
        count = more


def clopper_pearson(count: int, draws: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share, by bisection of the beta distribution."""
    tail = (1 - confidence) / 2

    def solve(a: float, b: float, p: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if statistics.incomplete_beta(a, b, middle) < p else (low, middle)
        return (low + high) / 2

    low = 0.0 if count == 0 else solve(count, draws - count + 1, tail)
    return low, 1.0 if count == draws else solve(count + 1, draws - count, 1 - tail)


def show(rates: Sequence[Rate]) -> None:
    """The table: a line for each noise, baseline, change and way to go on."""
    print(f"\ngate: CV {CV:.0%}, {ROUNDS} new rounds, with rerun up to {MOST_ROUNDS}, tolerance {TOLERANCE:.0%}")
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for one in rates:
        key = (one.noise, one.sessions, one.rounds, one.between, one.change, one.rerun)
        head = {
            "noise": one.noise,
            "stored": f"{one.sessions} x {one.rounds}",
            "sessions' CV": f"{one.between:.0%}",
            "change": one.change,
            "rerun": "yes" if one.rerun else "",
        }
        line = lines.setdefault(key, {**head, **dict.fromkeys(VERDICTS, ""), "": ""})
        low, high = one.interval
        line[one.verdict] = f"{100 * one.share:.2f} % ({100 * low:.2f} .. {100 * high:.2f})"
        if one.outcome and line[""] != "DOES NOT HOLD":
            line[""] = one.outcome if line[""] in ("", "holds") else line[""]
    print(tabulate(list(lines.values()), headers="keys", disable_numparse=True))
    print(
        f"\nBounds, by the interval as a whole: without a change {FALSE_ALARMS:.0%} regressed and as many improved at "
        f"most; with it {CAUGHT:.0%} regressed at least, with {CLAIMED[0]} sessions of {CLAIMED[1]} rounds that do not "
        "deviate. Not claimed: other baselines, single calls, which nothing is judged by, and noise made larger than "
        "it is. Their lines say how often they do."
    )


def in_order(order: Mapping[str, Any]) -> None:
    """Five rounds in a row against all others, as they came: what load that comes and goes makes of it."""
    rows = []
    for name, series in order.items():
        values, tally = series["figures"], Tally()
        for start in range(len(values) - ROUNDS + 1):
            # Five in a row are taken for a session.
            rest = [*values[:start], *values[start + ROUNDS :]]
            others = {str(at): rest[at : at + ROUNDS] for at in range(0, len(rest), ROUNDS)}
            tally.add(compare.decide(values[start : start + ROUNDS], others, series["better"], TOLERANCE).verdict)
        rows.append({"series": name, "CV": f"{statistics.cv(values) or 0:.1%}", **tally.verdicts})
    print("\nWithout a bound: five rounds in a row against the others, in their order and with their own spread")
    print(tabulate(rows, headers="keys", disable_numparse=True))


def measured(paths: Sequence[Path]) -> dict[str, Any]:
    """The noise of sessions: residuals of the logarithms, each series less its mean and over its deviation."""
    rounds: dict[str, list[list[float]]] = {"p_train": [], "memory_peak": []}
    calls: list[list[float]] = []
    order: dict[str, Any] = {}
    found = sessions.read_all(paths)
    for session in found:
        for result in session.results:
            calls += [series] if len(series := result.operator.get("samples") or []) >= 60 else []
            for name, held in rounds.items():
                series = [float(f"{one.metrics[name].value:.7g}") for one in result.rounds if name in one.metrics]
                if len(series) >= 20:
                    held.append(series)
                    better = result.metrics[name].better
                    order[f"{name} of {result.case.id}, {session.name}"] = {"better": better, "figures": series}
    medians = [[statistics.median(one[at : at + 10]) for at in range(0, len(one) - 9, 10)] for one in calls]
    pools = {f"rounds: {name}": pool(series) for name, series in rounds.items()}
    pools["operators: medians of 10 calls"] = pool([one for one in medians if len(one) >= 20])
    pools["operators: single calls"] = pool(calls, judged=False)
    hosts = {one.name: one.description.get("host") or {} for one in found}
    return {
        "how": "Logarithms of the figures of a series, less their mean, over their standard deviation. Rounds: 20 or "
        "more of one case in one session. Calls: 60 or more of one operator in one session, or the medians of 10 in a "
        "row of which there are 20 or more; 3000 of all. own_cv is the median of the series'. The host was shared: "
        "other work came and went.",
        "sessions": [{"name": name, "cpu": one.get("cpu"), "cpus": one.get("cpus")} for name, one in hosts.items()],
        "pools": pools,
        "order": order,
    }


def pool(series: Sequence[Sequence[float]], *, judged: bool = True, most: int = 3000) -> dict[str, Any]:
    """The residuals of series together, or a sample of them."""
    every = normalized(series)
    kept = random.Random(1).sample(every, min(most, len(every)))
    own = round(statistics.median([found for one in series if (found := statistics.cv(one)) is not None]), 4)
    return {"judged": judged, "series": len(series), "of": len(every), "own_cv": own, "residuals": kept}


def normalized(series: Sequence[Sequence[float]]) -> list[float]:
    """The residuals of all series together."""
    found = []
    for one in series:
        logs = [math.log(value) for value in one]
        centre, spread = statistics.mean(logs), statistics.deviation(logs)
        found += [round((value - centre) / spread, 3) for value in logs if spread > 0]
    return found


if __name__ == "__main__":
    sys.exit(main())
