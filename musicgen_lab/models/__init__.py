"""Models: finding them, their configuration and weights, and the embedded model itself."""
