"""What is left out of the image, what is in it, and how large it may be; serving/Dockerfile runs these."""
