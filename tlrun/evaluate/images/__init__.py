"""Images for images.json: what the net is given, and what it takes it for."""
