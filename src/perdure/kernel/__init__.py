"""Words every room shares: identifiers, digests, paths, time, the actor and the base error."""
