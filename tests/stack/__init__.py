"""What the commands of the stack do for an operator."""
