"""The growing network and what it answers."""
