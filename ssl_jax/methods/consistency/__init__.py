"""Few labels and many images: predictions that agree under noise."""
