"""Runs become pages and pictures."""
