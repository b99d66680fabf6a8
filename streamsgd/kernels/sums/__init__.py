"""What adds up rows and moves nothing."""
