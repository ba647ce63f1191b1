"""Two-stage retrieval: candidates by inner product over the whole catalogue, for the whole model to score."""
