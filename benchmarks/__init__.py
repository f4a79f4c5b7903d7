"""Measurements that docs name. `python -m benchmarks` lists them; docs/evidence has their results."""
