"""What runs inside the workload processes: one shared loop, an adapter for each framework.

Nothing here imports pytest, nor any room but ``perflog``, ``bounds``, ``errors``, ``launch.context`` and
``operators.problems``: a worker may run in another interpreter than pytest's, in which only the framework is installed.
"""
