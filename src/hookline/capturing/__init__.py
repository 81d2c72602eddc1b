"""What capture is made of: which rows count, the data set, the folder, the process that fills it, and its readers."""
