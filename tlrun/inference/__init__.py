"""Use a trained model: load, predict, export."""
