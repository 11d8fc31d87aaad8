"""What goes wrong with a peer."""

from pipelines.errors import FactoryError


class PeerError(FactoryError):
    """A peer cannot be installed, built or asked; the message names the peer and the log of what it said."""
