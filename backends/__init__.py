"""Graph to machine: targets, schedules, the TVM pipeline, measurement."""
