"""The package `linacodec`, opened with an explicit device and without what is not needed."""
