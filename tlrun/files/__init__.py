"""Files from anybody, read and written safely: archives, CSV, YAML."""
