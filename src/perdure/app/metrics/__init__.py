"""What is told to whoever watches: counted in each process, gathered by the supervisor, read by Prometheus."""
