"""Image data sets that are found on this machine."""
