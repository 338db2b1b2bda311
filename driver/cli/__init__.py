"""The command line: what can be typed, what a person sees, and how a run ends."""
