"""What hookline.guard needs: the watch of finite values and the message of its error."""
