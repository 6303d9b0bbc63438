"""Directories that speak LDAP version 3: they know people, their passwords and their groups."""
