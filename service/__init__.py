"""The service: MusicGen Lab behind a web endpoint, on this machine or on Modal."""
