"""`python -m raymap`: the command line, where the program itself is not installed (as in a job's working directory)."""

from raymap.cli import main

main()
