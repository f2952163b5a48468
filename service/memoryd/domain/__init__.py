"""What memories are: records, rules and errors, without input or output."""
