"""Meta-learning: which parameters adapt, by which rule, and the outer loop that trains the rest."""
