"""Files and folders, here and in object stores: listed, opened, read with retries, written in one piece."""
