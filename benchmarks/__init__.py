"""Benchmarks of aiopg beside the tools it stands next to; `python -m benchmarks` runs them."""
