"""Penalties: what keeps old knowledge."""
