"""Starting a job and guaranteeing its end.

The pytest process calls :func:`pytest_flagperf.launch.job.run_job`. It starts ``supervisor.py``, which starts a
framework's launcher (``engines.py``), which starts ``shim.py`` for each rank, which calls the worker's entry with
a :class:`pytest_flagperf.launch.context.RankContext`. What happened is written to files (``records.py``), from
which ``outcome.py`` reads the :class:`~pytest_flagperf.launch.outcome.JobOutcome` and ``diagnosis.py`` the cause.

This module imports nothing: the ranks of a job import it too.
"""
