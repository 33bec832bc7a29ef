"""What is done with a run that has ended: adopted, extended, verified, merged, retracted from, asked and exported."""
