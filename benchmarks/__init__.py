"""Side-by-side measurements. `python -m benchmarks --help` lists the parts; docs/performance.md has the results."""
