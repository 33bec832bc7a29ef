"""Phases of training besides the main one."""
