"""A file becomes chosen components. Nothing in this room imports torch: whoever only reads recipes answers at once."""
