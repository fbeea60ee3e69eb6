"""What did the user type? From argv to a verb, or to training through Hydra."""
