"""Players with spectrograms for the clips of a run, as HTML."""
