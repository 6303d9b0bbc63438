"""A store in a folder of a POSIX file system: local disks, and parallel file systems that keep its promises."""

from perdure.adapters.posix.store import PosixStore, find_instance_id

__all__ = ["PosixStore", "find_instance_id"]
