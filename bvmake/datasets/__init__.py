"""Datasets: a folder of images or the archives of the papers, prepared as arrays once."""
