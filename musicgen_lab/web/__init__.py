"""The web app over any backend: `app.create_app` makes it, `server.serve` runs it here."""
