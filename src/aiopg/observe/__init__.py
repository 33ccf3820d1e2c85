"""What happened in a store, and what happens, for people and their tools. Each module says what it needs."""
