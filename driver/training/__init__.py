"""Training of pruned and dense networks: the papers' recipe, short ones for a laptop, and runs that survive being killed."""
