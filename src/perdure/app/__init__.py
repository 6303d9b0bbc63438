"""The composition root and the process tree: nothing else sees all of the program."""
