"""`python -m lwmfw` is the command `lwmfw`."""

from lwmfw.cli import main

main()
