"""`python -m rounds` is the same command as `rounds`."""

from rounds.faces.cli import main

main()
