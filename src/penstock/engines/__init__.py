"""The stores, interchangeable; none imports another."""
