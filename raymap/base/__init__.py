"""What is known of a base, most of it without torch: its folder, family, shapes and FLOPs; and how it is loaded."""
