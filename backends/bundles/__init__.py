"""A compiled model as a folder: written, checked, read, run."""
