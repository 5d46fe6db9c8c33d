"""Real servers for tests: private instances on free ports, with their data in a temporary folder."""
