"""Public reference pictures: what is where, under which terms, and how they come into a folder."""
