"""A model's history: its entries, the state that they add up to, and the hints that save reading them all."""
