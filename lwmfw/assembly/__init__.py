"""Chosen components become attached ones: built, examined, and called through one door."""
