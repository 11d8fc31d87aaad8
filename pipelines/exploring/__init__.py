"""From one elastic student to the front: the shapes there are, what each would cost, what each costs, and which one a budget takes."""
