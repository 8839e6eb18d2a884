"""What decides and never acts: values in, steps out."""
