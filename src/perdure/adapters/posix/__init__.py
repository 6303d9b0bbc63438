"""A store in a folder of a POSIX file system: local disks, and parallel file systems that keep its promises."""
