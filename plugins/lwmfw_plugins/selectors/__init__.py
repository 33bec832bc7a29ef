"""Selectors: which images become exemplars."""
