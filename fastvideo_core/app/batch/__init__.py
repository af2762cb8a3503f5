"""Many videos from a file of prompts: what is whole on disk is done, what fails is a line, nothing is made twice."""
