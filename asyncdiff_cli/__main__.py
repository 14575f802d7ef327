"""`python -m asyncdiff_cli`, for launchers that start modules."""

from asyncdiff_cli.app import main

main()
