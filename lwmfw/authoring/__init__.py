"""A name becomes a package to fill with a method."""
