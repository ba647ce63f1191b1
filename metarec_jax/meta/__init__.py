"""Meta-learning: the inner loop with its updaters, and the outer loop."""
