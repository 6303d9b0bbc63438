"""Pure readers and writers of the formats that outlive this software; `docs/format` describes them in full."""
