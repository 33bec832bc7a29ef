"""Observers: what watches a run."""
