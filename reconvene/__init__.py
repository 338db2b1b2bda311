"""A compiler for pruned neural networks."""
