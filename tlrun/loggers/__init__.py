"""Further places for the rows of metrics.jsonl: TensorBoard, W&B, MLflow."""
