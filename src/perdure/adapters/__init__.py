"""How we go out: one module for each kind of outside system."""
