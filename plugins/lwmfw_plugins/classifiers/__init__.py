"""Classifiers: heads that grow."""
