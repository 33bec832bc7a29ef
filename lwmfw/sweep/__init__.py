"""A recipe becomes many runs, here or on a cluster."""
