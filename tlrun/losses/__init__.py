"""Pure loss functions: tensors in, a scalar out. No state, no loop; fp32, also under autocast."""
