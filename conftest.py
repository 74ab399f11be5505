"""For work in a clone: the suites' tests and the plugin's own."""

from __future__ import annotations


pytest_plugins = ["pytester"]
