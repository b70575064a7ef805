"""Models: where they are, what their folders hold, and the embedded model itself."""
