"""`python -m oscsim.cli`."""

from oscsim_command import main

main()
