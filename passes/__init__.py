"""Graph to graph: dependency view, propagation, rewriting, verification, pruning."""
