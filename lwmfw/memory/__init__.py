"""Exemplars of earlier steps."""
