"""Pure loss functions: tensors in, a scalar out. No state, no loop, no import but torch."""
