"""What models cost and how good their images are."""
