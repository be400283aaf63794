"""What methods are made of: each file one part that method files call."""
