"""Looking after a store: collecting what nothing refers to, checking every byte, and carrying versions out and in."""
