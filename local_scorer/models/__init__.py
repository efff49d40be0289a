"""What is trained and how: ResNet-18 of any width, training recipes, and the clock."""
