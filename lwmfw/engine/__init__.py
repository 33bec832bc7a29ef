"""What the loop calls: the run, how it is prepared and how it goes on, its terms, optimiser and evaluation."""
