"""What samples say: a figure with its interval, and the difference between two sets of them.

Standard library only. A sample is the figure of one round, or of one session of an operator: within a run the times
of single steps and calls hang together, and their number proves nothing about the next run. Nor do the rounds of one
session prove much about the next session.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


# Of the interval that is shown with a figure.
CONFIDENCE = 0.95

# From this many samples on the lowest and the highest do not count (MLPerf Training's rule).
OLYMPIC = 5

# New rounds that spread more than the baseline, at this level of an F test, are not pooled with it.
_UNEQUAL = 0.001

# Degrees of freedom of a variance that was not estimated: Student's t is the normal distribution by then.
_KNOWN = 10_000.0


@dataclass(frozen=True)
class Summary:
    """One figure of several samples.

    ``method`` is ``single``, ``median`` or ``olympic mean``; ``low`` and ``high`` bound its 95 % confidence interval,
    ``cv`` is the samples' standard deviation over their mean. They are ``None`` where the samples are too few.
    """

    value: float
    method: str
    low: float | None = None
    high: float | None = None
    cv: float | None = None


@dataclass(frozen=True)
class Difference:
    """Two sets of samples compared by the ratio of their geometric means.

    ``low`` and ``high`` bound the ratio less 1 with ``confidence``, and ``cleared_low`` and ``cleared_high`` do so with
    one-sided 95 %. ``test`` is ``Student's t`` or ``Welch's t``, ``degrees`` its degrees of freedom.
    """

    change: float
    low: float
    high: float
    cleared_low: float
    cleared_high: float
    confidence: float
    test: str
    degrees: float


def summarize(samples: Sequence[float]) -> Summary:
    """One figure: the sample itself, the median of two to four, from five on the olympic mean.

    The interval is Student's of all samples, around the olympic mean: with 5 to 20 normal samples it holds the mean in
    94.5 % of cases, also where one round in twenty is slow; the interval of a trimmed mean (Tukey and McLaughlin, 1963)
    would in 93 %. The range of four samples or fewer holds the median in 87.5 % of cases at most: of these there is no
    interval. Raises ``ValueError`` for none.
    """
    ordered = sorted(samples)
    count = len(ordered)
    if not count:
        raise ValueError("there is no sample")
    if count == 1:
        return Summary(ordered[0], "single")
    spread = cv(ordered)
    if count < OLYMPIC:
        return Summary(median(ordered), "median", cv=spread)
    value = math.fsum(ordered[1:-1]) / (count - 2)
    reach = t_quantile((1 + CONFIDENCE) / 2, count - 1) * deviation(ordered) / math.sqrt(count)
    return Summary(value, "olympic mean", value - reach, value + reach, spread)


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two in the middle."""
    ordered = sorted(samples)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def mean(samples: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(samples) / len(samples)


def deviation(samples: Sequence[float]) -> float:
    """The standard deviation of the population that the samples, two or more, are from."""
    centre = mean(samples)
    return math.hypot(*(one - centre for one in samples)) / math.sqrt(len(samples) - 1)


def cv(samples: Sequence[float]) -> float | None:
    """The coefficient of variation; ``None`` for fewer than two samples, or where the mean is not above zero."""
    if len(samples) < 2 or mean(samples) <= 0:
        return None
    return deviation(samples) / mean(samples)


def change(now: float, before: float) -> float | None:
    """By how much a figure differs from what it was, as a ratio less 1; ``None`` where it was zero."""
    return now / before - 1 if before else None


def compare_samples(
    measured: Sequence[float],
    baseline: Sequence[Sequence[float]],
    confidence: float = 0.99,
    *,
    assumed: float | None = None,
) -> Difference:
    """How much ``measured``, the rounds of one session, differs from ``baseline``, the rounds of several, session by
    session; all samples above zero.

    The logarithms are compared, so that twice and half are as far from 1. Sessions lie apart by more than their rounds
    do: the variance is that of the means of the stored sessions, with one degree of freedom less than there are of
    them, and one more session is predicted. Where the new session has fewer rounds than the stored ones, or rounds
    that spread more, which an F test at 0.1 % tells, their variance is added, and the degrees of freedom are those of
    Welch and Satterthwaite.

    With ``assumed``, the standard deviation of a session's logarithm, that stands for the sessions', of which there
    are too few to know; the rounds are then taken together (Student's t), or apart where theirs spread more (Welch's).
    Raises ``ValueError`` for samples that have no logarithm, or too few of them.
    """
    stored = [session for session in baseline if session]
    every = [one for session in stored for one in session]
    if not measured or not every or len(measured) + len(every) < 3 or (assumed is None and len(stored) < 2):
        raise ValueError("two sessions, or else three samples, are the fewest that can be compared")
    if min(*measured, *every) <= 0:
        raise ValueError("a sample is not above zero: it has no ratio")
    new, old = [math.log(one) for one in measured], [[math.log(one) for one in session] for session in stored]
    means = [mean(session) for session in old]
    centre = mean(new) - (mean(means) if assumed is None else mean([one for session in old for one in session]))
    error, degrees, test = _of_sessions(new, old, means) if assumed is None else _of_rounds(new, old, assumed)
    wide = t_quantile((1 + confidence) / 2, degrees) * error
    # Within the tolerance is for the rounds to say where nobody knows the sessions: it is what these may lie apart.
    within = _of_rounds(new, old, 0.0) if assumed is not None else (error, degrees, test)
    narrow = t_quantile(CONFIDENCE, within[1]) * within[0]
    return Difference(
        change=math.expm1(centre),
        low=_ratio(centre - wide),
        high=_ratio(centre + wide),
        cleared_low=_ratio(centre - narrow),
        cleared_high=_ratio(centre + narrow),
        confidence=confidence,
        test=test,
        degrees=degrees,
    )


def _ratio(logarithm: float) -> float:
    """Less 1. An interval of one degree of freedom can exceed what a float holds: then it is as wide as one can say."""
    return math.expm1(min(logarithm, 100.0))


def _of_sessions(
    new: Sequence[float], old: Sequence[Sequence[float]], means: Sequence[float]
) -> tuple[float, float, str]:
    """The standard error of a session's mean beside those of others, its degrees of freedom, and the test's name."""
    count = len(means)
    parts = [(deviation(means) ** 2 * (1 + 1 / count), count - 1)]
    within, degrees = _within(old)
    rounds = 1 / mean([1 / len(session) for session in old])
    own = deviation(new) ** 2 if len(new) > 1 else 0.0
    # Of sessions of one round each the spread of the rounds is not more than that of the sessions.
    usual, of = (within, degrees) if degrees else (deviation(means) ** 2, count - 1)
    if own > 0 and (usual == 0 or f_survival(own / usual, len(new) - 1, of) < _UNEQUAL):
        parts.append((own / len(new), len(new) - 1))
        return (*_satterthwaite(parts), "Welch's t")
    if len(new) < rounds and within > 0:
        parts.append((within * (1 / len(new) - 1 / rounds), degrees))
    return (*_satterthwaite(parts), "Student's t")


def _of_rounds(new: Sequence[float], old: Sequence[Sequence[float]], assumed: float) -> tuple[float, float, str]:
    """The same of rounds taken together, and sessions whose deviation is ``assumed``."""
    every = [one for session in old for one in session]
    between = assumed**2 * (1 + 1 / len(old))
    n, m = len(new), len(every)
    first, second = _squares(new), _squares(every)
    if n > 1 and m > 1 and first > 0:
        var_new, var_old = first / (n - 1), second / (m - 1)
        if var_old == 0 or f_survival(var_new / var_old, n - 1, m - 1) < _UNEQUAL:
            parts = [(var_new / n, n - 1), (var_old / m, m - 1), (between, _KNOWN)]
            return (*_satterthwaite(parts), "Welch's t")
    degrees = n + m - 2
    parts = [((first + second) / degrees * (1 / n + 1 / m), degrees), (between, _KNOWN)]
    return (*_satterthwaite(parts), "Student's t")


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The root of the sum of variances, and its degrees of freedom of those of each."""
    total = math.fsum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, parts[0][1]
    spent = math.fsum((variance / total) ** 2 / degrees for variance, degrees in parts if variance)
    return math.sqrt(total), min(1 / spent, _KNOWN)


def _within(sessions: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The variance of rounds about the mean of their session, and its degrees of freedom; 0 of sessions of one."""
    degrees = sum(len(session) - 1 for session in sessions)
    return (math.fsum(map(_squares, sessions)) / degrees if degrees else 0.0), degrees


def _squares(samples: Sequence[float]) -> float:
    centre = mean(samples)
    return math.fsum((one - centre) ** 2 for one in samples)


def t_cdf(t: float, degrees: float) -> float:
    """Student's t distribution: the probability of at most ``t`` (Abramowitz and Stegun 26.7.1)."""
    tail = incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2
    return 1 - tail if t > 0 else tail


@lru_cache(maxsize=4096)
def t_quantile(p: float, degrees: float) -> float:
    """Student's t distribution: what a share ``p`` of it, between 0 and 1, does not exceed."""
    if not 0 < p < 1 or degrees <= 0:
        raise ValueError(f"no quantile {p:g} of Student's t with {degrees:g} degrees of freedom")
    if p < 0.5:
        return -t_quantile(1 - p, degrees)
    if p == 0.5:
        return 0.0
    high = 1.0
    while t_cdf(high, degrees) < p:
        high *= 2
    return _root(lambda t: t_cdf(t, degrees) - p, 0.0, high)


def f_survival(ratio: float, numerator: float, denominator: float) -> float:
    """Fisher's F distribution: the probability of more than ``ratio`` (Abramowitz and Stegun 26.6.2)."""
    return incomplete_beta(denominator / 2, numerator / 2, denominator / (denominator + numerator * ratio))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1 / (1 + d2 / (1 + …)), by the modified method of Lentz (Thompson and Barnett, 1986)."""
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, 1000):
        k = step // 2
        if step % 2:
            term = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        else:
            term = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        d = 1 / ((1 + term * d) or tiny)
        c = (1 + term / c) or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function is zero, between ``low`` and ``high``, by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
