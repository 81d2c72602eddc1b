"""`python -m hookline`: the command line."""

from hookline.cli.app import main

main()
