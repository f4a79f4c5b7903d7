"""All questions about a GPU in one command of at most ten minutes: `python -m benchmarks gpu`, or `make gpu`.

It needs Python 3.11 to 3.13 and torch, numpy, safetensors, tokenizers and pyarrow alone: no Ray, no network, and no
virtual environment. `--device stand-in` runs all of it without a GPU on the stand-in device of the tests, with small
models, and `--device cpu` on the CPU.
"""
