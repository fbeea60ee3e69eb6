"""Domain-adversarial adaptation."""
