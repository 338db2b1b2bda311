"""Programs that attack what reads other people's bytes: bounded in number and time, and the same again for the same seed."""
