"""Faults injected on purpose into the command line. `python -m drills` prints how many it survived."""
