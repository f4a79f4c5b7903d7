"""Side-by-side measurements. `python -m benchmarks --help` lists the parts; docs/performance.md says what they mean."""
