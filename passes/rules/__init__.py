"""One file per operator family: constants forward, liveness backward, and how to slice."""
