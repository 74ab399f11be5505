"""Operators and hardware: single kernels, links and memories, each problem a test of its own."""
