"""What self-supervision is compared with: training with labels."""
