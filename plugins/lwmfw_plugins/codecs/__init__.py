"""Codecs: what turns exemplars into the bytes that are stored."""
