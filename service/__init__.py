"""MusicGen Lab on Modal: `app.py` is what is deployed, `deployment.py` its settings."""
