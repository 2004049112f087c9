"""The services held against published clients: what an application gets through them, and how they fare in trouble."""
