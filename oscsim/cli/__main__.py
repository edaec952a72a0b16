"""`python -m oscsim.cli`."""

from oscsim.cli import main

main()
