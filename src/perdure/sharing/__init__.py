"""Sharing with the outside: links, each a secret that opens one archive, folder or file to whoever has it."""
