"""The local copies that loading works from, bounded in size, and of use with the store gone."""
