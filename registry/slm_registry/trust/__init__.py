"""Who vouches for a version: keys, signatures, the policy that asks for them, and the memory of logs that were seen."""
