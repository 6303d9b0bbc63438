"""OCFL objects on stores: staging, sealing, copies, heads, journals, and the reading back that makes a copy count."""
