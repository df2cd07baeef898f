"""Which explanation to trust: every method on data whose truth is known, on photographs, and in sanity checks.

`python -m benchmarks.study` runs it; `docs/experiments.md` is written from what it found.
"""
