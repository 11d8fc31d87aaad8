"""Running a bundle: what all kinds of models share, and a module a kind."""
