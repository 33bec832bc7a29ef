"""What is done with a run that has ended: adopted, extended, verified, merged, asked and exported."""
