"""The benchmark suite: ``python -m benchmarks`` measures, ``--write`` keeps what it found in ``RESULTS.md``."""
