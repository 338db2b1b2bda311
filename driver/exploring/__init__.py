"""From a trained network to a front: for each budget of time several networks, each trained, compiled, timed and tested."""
