"""What one visitor has chosen and done, as frozen values, and pure functions of them."""
