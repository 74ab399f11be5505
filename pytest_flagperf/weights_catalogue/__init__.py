"""The sets of weights that cases which ship name."""

from __future__ import annotations

from pytest_flagperf.weights_catalogue import diffusion
from pytest_flagperf.weights_catalogue import language
from pytest_flagperf.weights_catalogue import speech
from pytest_flagperf.weights_catalogue import vision


SETS = (*vision.SETS, *language.SETS, *speech.SETS, *diffusion.SETS)
