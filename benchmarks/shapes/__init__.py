"""Drawn shapes with captions, and models that learn to draw them: latent, text-to-image, flow."""
