"""Networks by name: the papers' ones, and trained ones that packages bring."""
