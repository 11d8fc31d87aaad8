"""The board: this project and what a user would do instead, side by side, in one run."""
