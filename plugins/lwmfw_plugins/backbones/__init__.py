"""Backbones: network bodies."""
