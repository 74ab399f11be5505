"""Inference inside a workload process: the flow of a case, its engines, and what is measured of them."""
