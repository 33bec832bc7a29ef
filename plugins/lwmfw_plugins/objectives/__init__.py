"""Objectives: the classification loss L_C."""
