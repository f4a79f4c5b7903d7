"""Side-by-side measurements. `python -m benchmarks --help` lists them; docs/evidence/performance.md has results."""
