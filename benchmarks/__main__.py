"""``python -m benchmarks``: every benchmark there is (so far, the inner loop)."""

from benchmarks.inner_loop import main

main()
