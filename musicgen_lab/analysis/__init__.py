"""What a sound is like: arrays in, numbers or arrays out. Knows nothing of sweeps or backends."""
