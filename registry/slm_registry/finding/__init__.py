"""From what somebody asks for to the versions that answer it."""
