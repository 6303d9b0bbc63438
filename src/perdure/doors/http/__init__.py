"""What every HTTP door shares: the application, problems, sign-in, paths, cursors, conditions and streams of bytes."""
