"""Benchmarks of jaxai: `python -m benchmarks` against its peers, `python -m benchmarks.foundation` alone."""
