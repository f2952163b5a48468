"""What is read from the environment."""
