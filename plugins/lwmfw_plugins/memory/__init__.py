"""Exemplar memory: what chooses and keeps images of earlier steps."""
