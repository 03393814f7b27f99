"""Judges of images: CLIP (did the meaning shift?), LPIPS (did the image shift?), and the further ones of a study."""
