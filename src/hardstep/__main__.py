"""Run the command line as `python -m hardstep` (for torchrun)."""

from hardstep.cli import main

main()
