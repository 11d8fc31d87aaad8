"""Every write to a model: publishing a version, moving an alias, marking a version, and the leases that keep collections away."""
