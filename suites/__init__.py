"""The benchmark suites; in the installed package they are importable as ``flagperf_suites``."""
