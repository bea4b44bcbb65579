"""Write a bundle that takes new class names where it is deployed."""
