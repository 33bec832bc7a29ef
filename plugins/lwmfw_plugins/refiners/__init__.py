"""Refiners: what changes the pixels of exemplars before they are stored."""
