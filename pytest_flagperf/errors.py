"""What can go wrong, in two families.

``AssertionError`` subclasses say that the thing measured is not good enough; Allure calls such a test
*failed*. ``FlagPerfError`` subclasses say that the measurement could not be made or cannot be trusted;
Allure calls such a test *broken*. Standard library only: the ranks of a job import this module too.
"""

from __future__ import annotations


class FlagPerfError(Exception):
    """The measurement could not be made, or cannot be trusted."""


class ConfigurationError(FlagPerfError):
    """A case, an overlay, a vendor file or an option says something that cannot be carried out."""


class DeviceUnavailable(FlagPerfError):
    """The devices a case needs are not there, or could not be leased."""


class ProbeError(DeviceUnavailable):
    """A vendor's driver or management program could not be asked, or answered with what cannot be understood."""


class DatasetError(FlagPerfError):
    """A dataset is missing, incomplete or corrupt."""


class LaunchFailed(FlagPerfError):
    """The job did not start, or its launcher failed before any rank did."""


class RankCrashed(FlagPerfError):
    """A rank raised, exited early or was ended by a signal."""


class RankStalled(FlagPerfError):
    """A rank wrote no event for longer than the stall timeout."""


class JobTimedOut(FlagPerfError):
    """The job was still running at its deadline."""


class NonFiniteLoss(FlagPerfError):
    """The training loss became NaN or infinite."""


class ParametersDiverged(FlagPerfError):
    """The ranks of a data-parallel job ended with different parameters."""


class PrecisionUnavailable(FlagPerfError):
    """The precision asked for cannot be put in force on this device and framework."""


class InvalidMeasurement(FlagPerfError):
    """The figures contradict themselves or physics: negative times, NaN, a missing FINISHED event."""


class OperatorFailed(FlagPerfError):
    """A framework's kernel raised an error, or its worker answered with what is no measurement."""


class DeviceOutOfMemory(FlagPerfError):
    """A problem does not fit into the memory that the device has."""


class ReplayError(FlagPerfError):
    """A directory given to ``--replay`` holds nothing that can be judged for this case."""


class TargetMissed(AssertionError):
    """The job ran to its end and a target of the case does not hold."""


class WrongResult(AssertionError):
    """An operator's kernel gave a wrong answer: how fast it is, is of no interest."""


class Regressed(AssertionError):
    """A metric is worse than its baseline, by more than its tolerance and its noise."""


class Undecided(AssertionError):
    """The rounds do not tell whether a metric is worse than its baseline, and ``--on-inconclusive`` asks to know."""


class RequirementMissed(AssertionError):
    """A figure derived from several cases does not hold what ``--require`` asks for."""
