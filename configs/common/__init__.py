"""What configs share: datasets, backbones, budgets and the options that signatures declare."""
