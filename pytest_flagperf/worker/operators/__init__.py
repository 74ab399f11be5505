"""Operator kernels: a warm process that measures one problem after another, right answers first.

``serve`` speaks the protocol, ``engine`` takes one request from drawn data to a reply, ``measure`` owns the clock,
``correctness`` and ``reference`` judge the answers, and a package for each framework brings its kernels.
"""
