"""How the world comes in: parse, call one use case, render. No rules, no SQL."""
