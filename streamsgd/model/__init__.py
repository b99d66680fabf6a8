"""What training leaves behind: predict, evaluate, explain, save."""
