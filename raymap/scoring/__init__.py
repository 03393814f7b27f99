"""The judges: CLIP (did the meaning shift?) and LPIPS (did the picture shift?)."""
