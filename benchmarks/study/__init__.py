"""Which explanation to trust: methods on data whose truth is known, on photographs, in sanity checks.

`python -m benchmarks.study` runs it; `docs/experiments.md` is written from what it found.
"""
