"""The life of an archive: open, fill, close, append, read, verify, withdraw."""
