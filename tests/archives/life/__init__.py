"""The life of archives on a real database and real stores."""
