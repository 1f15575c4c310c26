"""The command line as `python -m offramp`."""

from offramp.cli import main

main()
