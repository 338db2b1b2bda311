"""A trained network made smaller step by step: a little of every layer goes, and the rest recovers before the next step.

A rule says what goes at a step: the search of RL-Pruner, or what it is compared with.
"""
