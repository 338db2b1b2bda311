"""Getting back without training what a removal of channels cost: layers are solved anew on calibration inputs."""
