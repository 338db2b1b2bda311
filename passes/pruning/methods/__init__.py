"""Methods that are more than a score, one to a file."""
