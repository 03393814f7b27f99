"""What is known of a base, most of it without torch: where it is, its family, shapes and FLOPs; and how it is loaded."""
