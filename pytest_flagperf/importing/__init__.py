"""``flagperf import``: FlagPerf's configuration as pytest commands, overlays and an ini snippet.

Its files are read as data and never run. What cannot be taken is named, each with file, line and reason.
"""
