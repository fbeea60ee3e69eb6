"""Images and texts in one space of features: classes by what is said of them."""
