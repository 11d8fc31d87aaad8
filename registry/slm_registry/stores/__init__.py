"""Where a registry lies: the small interface of a store, a folder and a bucket behind it, and the probes that tell whether one will do."""
