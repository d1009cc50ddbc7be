"""Random hostile input for everything that reads a file or a string: python -m tests.fuzz --minutes=10 --seed=0"""
