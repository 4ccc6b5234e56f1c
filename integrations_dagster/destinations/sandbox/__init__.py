"""What the sandbox alone speaks."""
