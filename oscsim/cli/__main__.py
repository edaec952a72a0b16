"""`python -m oscsim.cli`."""

from oscsim.cli.entry import main

main()
